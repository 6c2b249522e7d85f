// Frames as a test's server says them: short defaults, each field open to change. Used by tests only.
import type {
	Applied,
	Engine,
	Finished,
	Gap,
	Lens,
	MetricInfo,
	ModelInfo,
	Resumed,
	Rows,
	Error as ServerError,
	Started,
	Tokens,
	VectorInfo,
	Watched,
	Welcome,
} from "../protocol/types.gen";

/** Bits of the half float nearest to a number of ordinary size (tests use nothing else). */
export function halfBits(value: number): number {
	if (value === 0) return 0;
	const sign = value < 0 ? 0x8000 : 0;
	const size = Math.abs(value);
	let exponent = Math.floor(Math.log2(size));
	let fraction = Math.round((size / 2 ** exponent - 1) * 1024);
	if (fraction === 1024) {
		fraction = 0;
		exponent += 1;
	}
	return sign | ((exponent + 15) << 10) | fraction;
}

export function halves(values: readonly number[]): Uint8Array {
	const bytes = new Uint8Array(values.length * 2);
	values.forEach((value, i) => {
		const bits = Number.isNaN(value) ? 0x7e00 : halfBits(value);
		bytes[2 * i] = bits & 0xff;
		bytes[2 * i + 1] = bits >> 8;
	});
	return bytes;
}

/** Rows in which every number is `value(position, metric index, layer)`. */
export function rowsFrame(
	start: number,
	count: number,
	options: {
		layers?: number;
		metrics?: string[];
		rev?: (position: number) => number;
		value?: (position: number, metric: number, layer: number) => number;
		entropy?: (position: number) => number;
	} = {},
): Rows {
	const { layers = 2, metrics = ["norm"], rev = () => 0, value = (p, m, l) => p + m / 4 + l / 16 } = options;
	const { entropy } = options;
	const values: number[] = [];
	for (let p = start; p < start + count; p++) {
		for (let m = 0; m < metrics.length; m++) for (let l = 0; l < layers; l++) values.push(value(p, m, l));
	}
	const each = <T>(of: (position: number) => T) => Array.from({ length: count }, (_, i) => of(start + i));
	return {
		type: "rows",
		run: "r1",
		seq: 1,
		start,
		count,
		revs: each(rev),
		metrics,
		layers,
		dtype: "f2",
		data: halves(values),
		entropy: entropy === undefined ? null : halves(each(entropy)),
	};
}

/** Guesses in which the i-th of a layer at a position is token `id(position, layer, i)` with 1/2, 1/4, ... */
export function lensFrame(
	start: number,
	count: number,
	options: {
		layers?: number[];
		top?: number;
		id?: (position: number, layer: number, place: number) => number;
		texts?: Record<number, string>;
	} = {},
): Lens {
	const { layers = [1], top = 2, id = (p, l, i) => 100 * p + 10 * l + i, texts = {} } = options;
	const ids: number[] = [];
	for (let p = start; p < start + count; p++) {
		for (const layer of layers) for (let i = 0; i < top; i++) ids.push(id(p, layer, i));
	}
	const bytes = new DataView(new ArrayBuffer(ids.length * 4));
	ids.forEach((one, i) => {
		bytes.setInt32(4 * i, one, true);
	});
	return {
		type: "lens",
		run: "r1",
		seq: 1,
		start,
		count,
		layers,
		top,
		ids: new Uint8Array(bytes.buffer),
		probabilities: halves(ids.map((_, i) => 2 ** -((i % top) + 1))),
		new_ids: Object.keys(texts).map(Number),
		new_texts: Object.values(texts),
	};
}

export function startedFrame(prompt: readonly string[], id = "c1", run = "r1"): Started {
	return {
		type: "started",
		run,
		seq: 1,
		id,
		prompt: { ids: prompt.map((_, i) => 100 + i), texts: [...prompt], spans: [] },
		adapter: null,
		metrics: ["norm"],
		model: "",
		strengths: {},
		settings: {},
		sampling: null,
		edits: [],
		origin: "chat",
	};
}

export function tokensFrame(start: number, texts: readonly string[], ids?: number[], run = "r1"): Tokens {
	return {
		type: "tokens",
		run,
		seq: 1,
		start,
		ids: ids ?? texts.map((_, i) => 1000 + start + i),
		texts: [...texts],
		logprobs: texts.map(() => null),
		ranks: texts.map(() => null),
	};
}

export function finishedFrame(changes: Partial<Finished> = {}): Finished {
	return {
		type: "finished",
		run: "r1",
		seq: 9,
		reason: "stop",
		stop: null,
		error: null,
		usage: { prompt_tokens: 1, reply_tokens: 1, cached_tokens: 0 },
		timing: { first_token_ms: 1, total_ms: 2, tokens_per_s: null },
		...changes,
	};
}

/** Rows that are lost, unless the changes say otherwise. */
export function gapFrame(start: number, count: number, changes: Partial<Gap> = {}): Gap {
	return { type: "gap", run: "r1", seq: 1, start, count, kept: false, cached: false, ...changes };
}

export function appliedFrame(rev: number, position: number, changes: Partial<Applied> = {}): Applied {
	return { type: "applied", run: "r1", seq: 1, rev, position, strengths: {}, settings: {}, ...changes };
}

export function resumedFrame(changes: Partial<Resumed> = {}): Resumed {
	return { type: "resumed", run: "r1", seq: 0, newest: 9, rev: 0, strengths: {}, settings: {}, ...changes };
}

/** A ready engine without a model of its own: the session keeps the one that it knows. */
export function engineFrame(changes: Partial<Engine> = {}): Engine {
	return {
		type: "engine",
		state: "ready",
		stage: "Ready.",
		progress: 1,
		model: null,
		metrics: [],
		vectors: [],
		...changes,
	};
}

export function errorFrame(changes: Pick<ServerError, "code"> & Partial<ServerError>): ServerError {
	return { type: "error", message: "No.", run: null, id: null, rev: null, field: null, ...changes };
}

export function welcomeFrame(changes: Partial<Welcome> = {}): Welcome {
	return {
		type: "welcome",
		protocol: 1,
		server: "test",
		name: "lab",
		epoch: "e1",
		engine: { state: "ready", stage: "Ready.", progress: 1 },
		model: null,
		metrics: [],
		vectors: [],
		limits: {
			max_frame_bytes: 256 * 1024,
			max_messages: 256,
			max_vectors: 32,
			max_strength: 1000,
			max_runs_per_connection: 1,
			max_reply_tokens: 1,
			grace_seconds: 30,
		},
		change_model: false,
		edits: [],
		...changes,
	};
}

/** What the run is watched with changes at a position; `live` are the names that its own code brings. */
export function watchedFrame(
	position: number,
	metrics: string[],
	live: string[] = [],
	changes: Partial<Watched> = {},
): Watched {
	return {
		type: "watched",
		run: "r1",
		seq: 2,
		position,
		metrics: [...metrics, ...live.map((name) => `live:${name}`)],
		lens: null,
		entropy: false,
		alternatives: 0,
		live: live.map((name) => metricInfo({ id: `live:${name}`, label: name, family: "live" })),
		...changes,
	};
}

export function modelInfo(changes: Partial<ModelInfo> = {}): ModelInfo {
	return {
		id: "tiny",
		layers: 2,
		hidden_size: 4,
		vocab_size: 9,
		dtype: "float32",
		max_model_len: 64,
		special_ids: [],
		chat: "template",
		experts: null,
		adapters: [],
		thoughts: null,
		template: [],
		...changes,
	};
}

export function metricInfo(changes: Partial<MetricInfo> = {}): MetricInfo {
	return {
		id: "norm",
		label: "Norm",
		description: "",
		unit: "",
		transform: "linear",
		scale: { kind: "sequential", lo: null, hi: null, mid: null },
		family: "residual",
		cost: "",
		default: true,
		error: null,
		...changes,
	};
}

export function vectorInfo(changes: Partial<VectorInfo> = {}): VectorInfo {
	return {
		id: "joy",
		label: "Joy",
		description: "",
		layers: [3],
		range: [-1, 1],
		suggested: 0.5,
		kind: "direction",
		operator: "add",
		operators: ["add", "add_absolute", "ablate", "clamp"],
		feature: null,
		adapter: null,
		file: null,
		own: false,
		...changes,
	};
}
