// Generated from wire.schema.json by `npm run gen`. Do not edit: change the server's models and run it again.

export type ClientFrame = Hello | Start | StartTogether | Steer | Watch | Stop | Resume | AskRows | Ping;
export type ServerFrame =
	| Welcome
	| Engine
	| Edits
	| NotebookRuns
	| Started
	| Resumed
	| Queued
	| Tokens
	| Part
	| Rows
	| Lens
	| Alternatives
	| Applied
	| Watched
	| Gap
	| Finished
	| Error
	| Pong;
/**
 * What an `error` frame is about. A client may act on the code and show the message.
 */
export type ErrorCode =
	| "bad_frame"
	| "unknown_type"
	| "invalid"
	| "too_large"
	| "unexpected"
	| "unauthorized"
	| "unknown_run"
	| "unknown_vector"
	| "unknown_metric"
	| "unknown_adapter"
	| "unknown_edit"
	| "stale_revision"
	| "duplicate_run"
	| "prompt_too_long"
	| "busy"
	| "rate_limited"
	| "other_epoch"
	| "draining"
	| "steering_failed"
	| "block_failed"
	| "engine_not_ready"
	| "engine_failed"
	| "model_changed"
	| "internal";

/**
 * Everything that travels, as one schema.
 */
export interface Wire {
	client: ClientFrame;
	server: ServerFrame;
}
/**
 * The first frame of a connection; the server answers `welcome`.
 */
export interface Hello {
	type: "hello";
	token?: string | null;
}
/**
 * Start a run. `id` is the client's own name for it, used to match `started` or `error` to this frame.
 */
export interface Start {
	type: "start";
	id: string;
	messages: ChatMessage[];
	adapter?: string | null;
	sampling?: Sampling;
	edits?: string[];
	strengths?: {
		[k: string]: number;
	};
	settings?: {
		[k: string]: VectorSetting;
	};
	write_on?: boolean;
	prefix_ids?: number[];
	template?: {
		[k: string]: boolean | number | string;
	};
	metrics?: string[] | null;
	lens?: LensOptions | null;
	entropy?: boolean;
	alternatives?: number;
	prompt_rows?: boolean;
	rows_from?: number;
	read_cache?: boolean;
}
/**
 * One turn of the conversation that makes the prompt.
 */
export interface ChatMessage {
	role: "system" | "user" | "assistant";
	content: string;
	thought?: string | null;
}
/**
 * How the next token is drawn. Temperature 0 is greedy and reproducible.
 */
export interface Sampling {
	max_tokens?: number;
	temperature?: number;
	top_p?: number;
	top_k?: number;
	min_p?: number;
	seed?: number | null;
	stop?: string[];
	repetition_penalty?: number;
}
/**
 * How one vector acts in a run; its strength stands beside it in `strengths`.
 */
export interface VectorSetting {
	operator?: ("add" | "add_absolute" | "ablate" | "clamp" | "feature_set" | "feature_scale") | null;
	lo?: number | null;
	hi?: number | null;
	scope?: "both" | "prompt" | "reply" | "thought" | "answer";
	first?: number | null;
	layers?: [number, number] | null;
}
/**
 * What the logit lens shows of a run.
 */
export interface LensOptions {
	stride?: number;
	top?: number;
}
/**
 * Start several runs that begin at the same moment and are computed in the same steps: all are admitted,
 * or none. Each is answered by its own `started`; an `error` of them names this frame by its `id`, and in
 * `field` which of them it is about.
 */
export interface StartTogether {
	type: "start_together";
	id: string;
	starts: Start[];
}
/**
 * Replace a run's strengths. The full set travels: a vector that is not named has strength 0.
 */
export interface Steer {
	type: "steer";
	run: string;
	rev: number;
	strengths: {
		[k: string]: number;
	};
	settings?: {
		[k: string]: VectorSetting;
	};
}
/**
 * Change what a live run is watched with, from the next step of the engine on. The full set travels, with
 * the meanings and defaults of `start`; the server answers `watched`. A run that waits for a place begins
 * with it.
 */
export interface Watch {
	type: "watch";
	run: string;
	metrics?: string[] | null;
	lens?: LensOptions | null;
	entropy?: boolean;
	alternatives?: number;
}
/**
 * End a run now, also one that waits; `finished` follows with reason `cancelled`. Stopping a finished run
 * is no error.
 */
export interface Stop {
	type: "stop";
	run: string;
}
/**
 * Watch a run from now on: one's own after a lost connection, or one that another connection started.
 *
 * The server answers `resumed` and then sends everything after event `after`, and goes on. Frames that came
 * before without moving `seq` may come again; they say the same.
 */
export interface Resume {
	type: "resume";
	run: string;
	epoch: string;
	after?: number;
}
/**
 * Send rows of `count` positions from `start` again: those that a `gap` with `kept` named.
 */
export interface AskRows {
	type: "rows";
	run: string;
	start: number;
	count: number;
}
/**
 * Ask for a `pong` with the same `t`, whatever it is to the client (milliseconds, say).
 */
export interface Ping {
	type: "ping";
	t: number;
}
/**
 * Answer to `hello`.
 */
export interface Welcome {
	type: "welcome";
	protocol: number;
	server: string;
	name: string;
	epoch: string;
	engine: EngineStatus;
	model: ModelInfo | null;
	metrics: MetricInfo[];
	vectors: VectorInfo[];
	limits: Limits;
	change_model: boolean;
	edits: EditInfo[];
}
/**
 * Where the engine is between a cold start and serving.
 */
export interface EngineStatus {
	state: "loading" | "ready" | "failed" | "draining" | "stopped";
	stage: string;
	progress: number;
}
/**
 * The served model. Null in `welcome` until its configuration has been read.
 */
export interface ModelInfo {
	id: string;
	layers: number;
	hidden_size: number;
	vocab_size: number;
	dtype: string;
	max_model_len: number;
	special_ids: number[];
	chat: "template" | "file" | "none";
	experts: ExpertsInfo | null;
	adapters: AdapterInfo[];
	thoughts: ThoughtMarks | null;
	template: TemplateArgument[];
}
/**
 * The experts of a layer of the model, in the layers that have some.
 */
export interface ExpertsInfo {
	count: number;
	chosen: number;
}
/**
 * One LoRA adapter that a run may be written with.
 */
export interface AdapterInfo {
	id: string;
	rank: number;
}
/**
 * The texts that a thinking model writes around its thought, such as `<think>` and `</think>`.
 */
export interface ThoughtMarks {
	start: string;
	end: string;
}
/**
 * Something that the model's chat template can be told, found in the template itself.
 */
export interface TemplateArgument {
	name: string;
	kind: "switch" | "choice" | "text" | "number";
	choices: string[];
	default: boolean | number | string | null;
}
/**
 * One metric: one number per token and layer.
 */
export interface MetricInfo {
	id: string;
	label: string;
	description: string;
	unit: string;
	transform: "linear" | "log2";
	scale: ColorScale;
	family: "residual" | "parts" | "projection" | "steering" | "router" | "logit_lens" | "own" | "live";
	cost: string;
	default: boolean;
	error: string | null;
}
/**
 * How a metric is coloured when the client has no better idea.
 */
export interface ColorScale {
	kind: "sequential" | "diverging";
	lo: number | null;
	hi: number | null;
	mid: number | null;
}
/**
 * What one slider steers with: a vector that the server knows, or a function of its own files.
 */
export interface VectorInfo {
	id: string;
	label: string;
	description: string;
	layers: number[];
	/**
	 * @minItems 2
	 * @maxItems 2
	 */
	range: [number, number];
	suggested: number;
	kind: "direction" | "feature" | "function";
	operator: ("add" | "add_absolute" | "ablate" | "clamp" | "feature_set" | "feature_scale") | null;
	operators: ("add" | "add_absolute" | "ablate" | "clamp" | "feature_set" | "feature_scale")[];
	feature: number | null;
	adapter: string | null;
	file: string | null;
	own: boolean;
}
/**
 * What this server accepts.
 */
export interface Limits {
	max_frame_bytes: number;
	max_messages: number;
	max_vectors: number;
	max_strength: number;
	max_runs_per_connection: number;
	max_reply_tokens: number;
	grace_seconds: number;
}
/**
 * A block of Python that a notebook has installed in the engine, and that runs may name.
 */
export interface EditInfo {
	id: string;
	name: string;
	since: number;
	bytes: number;
	runs: number;
	error: string | null;
}
/**
 * The engine's state changed, or a metric failed. `model` and `vectors` come once they are known, and are
 * others when the model has been changed.
 */
export interface Engine {
	type: "engine";
	state: "loading" | "ready" | "failed" | "draining" | "stopped";
	stage: string;
	progress: number;
	model: ModelInfo | null;
	metrics: MetricInfo[];
	vectors: VectorInfo[];
}
/**
 * The edits that there are now; sent when they have changed, or a run has been begun with one.
 */
export interface Edits {
	type: "edits";
	edits: EditInfo[];
}
/**
 * The newest runs of notebooks that the server keeps, live ones and finished ones, the newest first. Sent
 * after `welcome` where there are any, and whenever they have changed: whatever is not named is kept no
 * longer, or there are too many newer ones.
 */
export interface NotebookRuns {
	type: "notebook_runs";
	runs: RunNotice[];
}
/**
 * A run that clients are told of who have not asked for it; `resume` lets them watch it.
 */
export interface RunNotice {
	run: string;
	origin: "chat" | "notebook";
	prompt: string;
	since: number;
	state: "waiting" | "writing" | "finished";
}
/**
 * A run was admitted. `run` is its name from now on; `id` is what `start` called it.
 */
export interface Started {
	type: "started";
	run: string;
	seq: number;
	id: string;
	prompt: Prompt;
	metrics: string[];
	model: string;
	adapter: string | null;
	strengths: {
		[k: string]: number;
	} | null;
	settings: {
		[k: string]: VectorSetting;
	} | null;
	sampling: Sampling | null;
	edits: string[];
	origin: "chat" | "notebook";
}
/**
 * The prompt as the model reads it.
 */
export interface Prompt {
	ids: number[];
	texts: string[];
	spans: Span[];
}
/**
 * Tokens [start, end) of the prompt that belong to one message; the rest is the chat template's.
 */
export interface Span {
	role: string;
	start: number;
	end: number;
}
/**
 * Answer to `resume`; the events after the client's own come next.
 */
export interface Resumed {
	type: "resumed";
	run: string;
	seq: number;
	newest: number;
	rev: number;
	strengths: {
		[k: string]: number;
	};
	settings: {
		[k: string]: VectorSetting;
	};
}
/**
 * The run waits for a place in the engine.
 */
export interface Queued {
	type: "queued";
	run: string;
	seq: number;
	position: number;
}
/**
 * New tokens of the reply, in order, none twice.
 */
export interface Tokens {
	type: "tokens";
	run: string;
	seq: number;
	start: number;
	ids: number[];
	texts: string[];
	logprobs: (number | null)[];
	ranks: (number | null)[];
}
/**
 * A part of the reply has begun, or is about to: it reaches to the next part or to the reply's end. Only
 * models with `thoughts` have any. A reply that begins with an answer has no thought.
 */
export interface Part {
	type: "part";
	run: string;
	seq: number;
	part: "thought" | "answer";
	start: number;
}
/**
 * Rows of `count` consecutive positions.
 */
export interface Rows {
	type: "rows";
	run: string;
	seq: number;
	start: number;
	count: number;
	revs: number[];
	metrics: string[];
	layers: number;
	dtype: "f2";
	/**
	 * msgpack bin
	 */
	data: Uint8Array;
	entropy: Uint8Array | null;
}
/**
 * The likeliest next tokens by the raw logit lens: a layer's stream through final norm and
 * unembedding.
 */
export interface Lens {
	type: "lens";
	run: string;
	seq: number;
	start: number;
	count: number;
	layers: number[];
	top: number;
	/**
	 * msgpack bin
	 */
	ids: Uint8Array;
	/**
	 * msgpack bin
	 */
	probabilities: Uint8Array;
	new_ids: number[];
	new_texts: string[];
}
/**
 * The likeliest tokens of the model's final distribution, before temperature and the like: what could
 * have been written instead.
 */
export interface Alternatives {
	type: "alternatives";
	run: string;
	seq: number;
	start: number;
	count: number;
	top: number;
	/**
	 * msgpack bin
	 */
	ids: Uint8Array;
	/**
	 * msgpack bin
	 */
	logprobs: Uint8Array;
	new_ids: number[];
	new_texts: string[];
}
/**
 * The first row computed with revision `rev` has come back; it is the row of `position`.
 */
export interface Applied {
	type: "applied";
	run: string;
	seq: number;
	rev: number;
	position: number;
	strengths: {
		[k: string]: number;
	} | null;
	settings: {
		[k: string]: VectorSetting;
	} | null;
}
/**
 * What the run is watched with has changed: the row of `position` is the first that was computed so. Rows
 * before it have the columns of before.
 */
export interface Watched {
	type: "watched";
	run: string;
	seq: number;
	position: number;
	metrics: string[];
	lens: LensOptions | null;
	entropy: boolean;
	alternatives: number;
	live: MetricInfo[];
}
/**
 * Rows of `count` positions from `start` were skipped.
 */
export interface Gap {
	type: "gap";
	run: string;
	seq: number;
	start: number;
	count: number;
	kept: boolean;
	cached: boolean;
}
/**
 * The run's last event.
 */
export interface Finished {
	type: "finished";
	run: string;
	seq: number;
	reason: "stop" | "length" | "cancelled" | "error";
	stop: string | null;
	error: RunError | null;
	usage: Usage;
	timing: Timing;
}
/**
 * Why a run failed.
 */
export interface RunError {
	code: ErrorCode;
	message: string;
}
/**
 * Tokens of a finished run.
 */
export interface Usage {
	prompt_tokens: number;
	reply_tokens: number;
	cached_tokens: number;
}
/**
 * Measured by the server, in milliseconds from the moment it took the `start` frame.
 */
export interface Timing {
	first_token_ms: number | null;
	total_ms: number;
	tokens_per_s: number | null;
}
/**
 * Something was refused or went wrong. `message` is a sentence for people.
 */
export interface Error {
	type: "error";
	code: ErrorCode;
	message: string;
	run: string | null;
	id: string | null;
	rev: number | null;
	field: string | null;
}
/**
 * Answer to `ping`.
 */
export interface Pong {
	type: "pong";
	t: number;
}

export const SUBPROTOCOL = "steersight.v1";
export const PROTOCOL_VERSION = 1;
export const CLOSE_CODES = {
	"BAD_HANDSHAKE": {
		"code": 4400,
		"reason": "The first frame must be a hello."
	},
	"UNAUTHORIZED": {
		"code": 4401,
		"reason": "The token in hello is missing or wrong."
	},
	"WRONG_SUBPROTOCOL": {
		"code": 4406,
		"reason": "Ask for the WebSocket subprotocol steersight.v1."
	},
	"HELLO_TIMEOUT": {
		"code": 4408,
		"reason": "No hello arrived in time."
	},
	"FRAME_TOO_LARGE": {
		"code": 4413,
		"reason": "The frame is larger than limits.max_frame_bytes."
	},
	"TEXT_FRAME": {
		"code": 4415,
		"reason": "Text frames are not part of this protocol; send msgpack in binary frames."
	},
	"TOO_MANY_ERRORS": {
		"code": 4429,
		"reason": "Too many frames of this connection were bad, or came too fast."
	},
	"INTERNAL": {
		"code": 4500,
		"reason": "The server failed; its log says why."
	},
	"TOO_SLOW": {
		"code": 4508,
		"reason": "The client reads too slowly to keep up."
	}
} as const;
export const SERVER_TYPES: readonly string[] = [
	"alternatives",
	"applied",
	"edits",
	"engine",
	"error",
	"finished",
	"gap",
	"lens",
	"notebook_runs",
	"part",
	"pong",
	"queued",
	"resumed",
	"rows",
	"started",
	"tokens",
	"watched",
	"welcome"
];
/** Limits of the numbers in `Sampling`. */
export const SAMPLING_NUMBERS = {
	"max_tokens": {
		"default": 256,
		"integer": true,
		"min": 1,
		"exclusiveMin": false,
		"max": 131072
	},
	"temperature": {
		"default": 0.7,
		"integer": false,
		"min": 0,
		"exclusiveMin": false,
		"max": 2
	},
	"top_p": {
		"default": 0.95,
		"integer": false,
		"min": 0,
		"exclusiveMin": true,
		"max": 1
	},
	"top_k": {
		"default": 0,
		"integer": true,
		"min": 0,
		"exclusiveMin": false,
		"max": 1000000
	},
	"min_p": {
		"default": 0,
		"integer": false,
		"min": 0,
		"exclusiveMin": false,
		"max": 1
	},
	"seed": {
		"default": null,
		"integer": true,
		"min": 0,
		"exclusiveMin": false,
		"max": 9007199254740991
	},
	"repetition_penalty": {
		"default": 1,
		"integer": false,
		"min": 0.01,
		"exclusiveMin": false,
		"max": 5
	}
} as const;
