// The models that are on the server's machine, and the change to another one.
import { type Fetch, Http } from "../connection/http";

export interface ModelHere {
	id: string;
	where: string;
	size_bytes: number;
	parameters: number;
	dtype: string;
	layers: number;
	/** The most tokens; null where there is no limit. */
	context: number | null;
	fits: boolean;
	/** Estimated: of memory, or of each GPU. */
	needs_bytes: number;
	on: "cpu" | "gpu";
	/** Why it does not fit, as a sentence. */
	why: string | null;
}

export interface ModelsHere {
	models: ModelHere[];
	/** Id of the one that is served; null where it is none of them. */
	served: string | null;
	/** Replies that are being written, or wait: everybody's. */
	live: number;
	/** Why the last change failed, as a sentence. */
	failed: string | null;
}

export class ModelApi {
	private readonly http: Http;

	constructor(token?: () => string | null, fetch?: Fetch) {
		this.http = new Http(token, fetch);
	}

	here(): Promise<ModelsHere> {
		return this.http.json("api/models");
	}

	/** Begin to serve another model; what comes of it the engine's state tells. */
	async change(id: string): Promise<void> {
		const headers = { "content-type": "application/json" };
		await this.http.ask("api/model", { method: "POST", body: JSON.stringify({ id }), headers });
	}
}

const GIB = 2 ** 30;

/** What a person chooses by: "135 million parameters, 30 layers, 260 MiB". */
export function sizeText({ parameters, layers, size_bytes }: ModelHere): string {
	const size =
		size_bytes >= GIB ? `${(size_bytes / GIB).toFixed(1)} GiB` : `${Math.round(size_bytes / 2 ** 20)} MiB`;
	return `${countText(parameters)} parameters, ${layers} layers, ${size}`;
}

function countText(parameters: number): string {
	if (parameters >= 1e9) return `${(parameters / 1e9).toFixed(1)} billion`;
	return parameters >= 1e6 ? `${Math.round(parameters / 1e6)} million` : parameters.toLocaleString("en");
}

/** What a change would end, as a sentence. */
export function endsText(live: number): string {
	if (live === 0) return "No reply is being written now.";
	return live === 1
		? "One reply is being written, by you or by somebody else. It ends."
		: `${live} replies are being written, yours and other people's. They end.`;
}
