// The vectors' HTTP routes.
import { type Fetch, Http } from "../connection/http";
import type { VectorInfo } from "../protocol/types.gen";

/** As many bytes as an imported file may have. */
export const LARGEST_FILE = 64 * 1024 * 1024;

export interface VectorDetails {
	info: VectorInfo;
	provenance: Record<string, unknown>;
	file_bytes: number;
}

export interface ImportReport {
	format: string;
	found: string[];
	problems: string[];
	vectors: VectorInfo[];
}

/** Two system prompts, or two lists of example texts. */
export interface BuildRequest {
	label: string;
	positive: string | string[];
	negative: string | string[];
	/** The LoRA adapter it is made under; null is the base model. */
	adapter: string | null;
}

export interface Sweep {
	strength: number;
	effect: number;
	damage: number;
	sample: string;
}

export interface BuildResult {
	vector: VectorInfo;
	layer: number;
	range: [number, number];
	suggested: number;
	/** How well held-out examples are told apart at a layer: 1 is always, 0.5 is chance. */
	separation: { layer: number; score: number }[];
	sweep: Sweep[];
}

export interface BuildState {
	job: string;
	state: "running" | "done" | "failed" | "cancelled";
	stage: string;
	progress: number;
	error: string | null;
	result: BuildResult | null;
}

export class VectorApi {
	private readonly http: Http;

	constructor(token?: () => string | null, fetch?: Fetch) {
		this.http = new Http(token, fetch);
	}

	details(id: string): Promise<VectorDetails> {
		return this.http.json(vectorPath(id));
	}

	/** A vector's file, to keep. */
	async file(id: string): Promise<Blob> {
		const response = await this.http.ask(`${vectorPath(id)}/file`);
		return response.blob();
	}

	async remove(id: string): Promise<void> {
		await this.http.ask(vectorPath(id), { method: "DELETE" });
	}

	/** What a file holds; saved only when it is not a try. */
	read(file: File, label: string, only: { trial: boolean }): Promise<ImportReport> {
		const query = new URLSearchParams({ name: file.name });
		if (label !== "") query.set("label", label);
		if (only.trial) query.set("try", "1");
		const headers = { "content-type": "application/octet-stream" };
		return this.http.json(`api/vectors?${query}`, { method: "POST", body: file, headers });
	}

	/** Begin to build. Returns the job's name. */
	async build(request: BuildRequest): Promise<string> {
		const headers = { "content-type": "application/json" };
		const init = { method: "POST", body: JSON.stringify(request), headers };
		const { job } = await this.http.json<{ job: string }>("api/vectors/build", init);
		return job;
	}

	building(job: string): Promise<BuildState> {
		return this.http.json(buildPath(job));
	}

	async cancel(job: string): Promise<void> {
		await this.http.ask(buildPath(job), { method: "DELETE" });
	}
}

const vectorPath = (id: string) => `api/vectors/${encodeURIComponent(id)}`;
const buildPath = (job: string) => `api/vectors/build/${encodeURIComponent(job)}`;
