// The vectors' HTTP routes. Addresses are relative to the page's, so that a path prefix before it holds for them
// too. A token travels as a header, never in an address. Every refusal becomes an ApiError whose message is the
// server's sentence; what comes back is checked only as far as the page relies on it.
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

export class ApiError extends Error {
	override name = "ApiError";
	constructor(
		message: string,
		/** HTTP status, 0 when there was no answer. */
		readonly status: number,
	) {
		super(message);
	}
}

export type Fetch = (path: string, init?: RequestInit) => Promise<Response>;

export class VectorApi {
	constructor(
		private readonly token: () => string | null = () => null,
		private readonly fetch: Fetch = (path, init) => globalThis.fetch(path, init),
	) {}

	details(id: string): Promise<VectorDetails> {
		return this.#json(vectorPath(id));
	}

	/** A vector's file, to keep. */
	async file(id: string): Promise<Blob> {
		const response = await this.#ask(`${vectorPath(id)}/file`);
		return response.blob();
	}

	async remove(id: string): Promise<void> {
		await this.#ask(vectorPath(id), { method: "DELETE" });
	}

	/** What a file holds; saved only when it is not a try. */
	read(file: File, label: string, only: { trial: boolean }): Promise<ImportReport> {
		const query = new URLSearchParams({ name: file.name });
		if (label !== "") query.set("label", label);
		if (only.trial) query.set("try", "1");
		const headers = { "content-type": "application/octet-stream" };
		return this.#json(`api/vectors?${query}`, { method: "POST", body: file, headers });
	}

	/** Begin to build. Returns the job's name. */
	async build(request: BuildRequest): Promise<string> {
		const headers = { "content-type": "application/json" };
		const init = { method: "POST", body: JSON.stringify(request), headers };
		const { job } = await this.#json<{ job: string }>("api/vectors/build", init);
		return job;
	}

	building(job: string): Promise<BuildState> {
		return this.#json(buildPath(job));
	}

	async cancel(job: string): Promise<void> {
		await this.#ask(buildPath(job), { method: "DELETE" });
	}

	async #json<T>(path: string, init?: RequestInit): Promise<T> {
		const response = await this.#ask(path, init);
		try {
			return (await response.json()) as T;
		} catch {
			throw new ApiError("The server's answer cannot be read.", response.status);
		}
	}

	async #ask(path: string, init?: RequestInit): Promise<Response> {
		const token = this.token();
		const headers = new Headers(init?.headers);
		if (token !== null) headers.set("authorization", `Bearer ${token}`);
		let response: Response;
		try {
			response = await this.fetch(path, { ...init, headers });
		} catch {
			throw new ApiError("The server cannot be reached.", 0);
		}
		if (!response.ok) throw new ApiError(await sentence(response), response.status);
		return response;
	}
}

const vectorPath = (id: string) => `api/vectors/${encodeURIComponent(id)}`;
const buildPath = (job: string) => `api/vectors/build/${encodeURIComponent(job)}`;

async function sentence(response: Response): Promise<string> {
	try {
		const { error } = (await response.json()) as { error?: unknown };
		if (typeof error === "string" && error !== "") return error;
	} catch {
		// An answer of a proxy, say.
	}
	return `The server refused this (${response.status}).`;
}
