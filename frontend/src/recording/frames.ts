// A recorded run as the frames that a server would send of it. Events are not numbered as they were: `seq` is 0 for all
// of them and 1 for the last, so that a run which has been had is not sent again.
import type {
	Alternatives,
	Applied,
	AskRows,
	Finished,
	Gap,
	Lens,
	Resumed,
	Rows,
	Error as ServerError,
	ServerFrame,
	Started,
	Tokens,
	Watched,
} from "../protocol/types.gen";
import type { Revision, RunMeta } from "./meta";
import { type RunArrays, textsOf } from "./recording";

export interface RecordedRun {
	/** The name under which the session has it. */
	name: string;
	meta: RunMeta;
	arrays: RunArrays;
}

const TOKENS = 1024;
/** Numbers in one frame of rows: a megabyte, which a page takes in a few milliseconds. */
const MOST_NUMBERS = 2 ** 19;
const NO_ROW = -1;
export const UNFINISHED = "The recording was made while this reply was being written.";

/** The `seq` of a run's last event. */
export const LAST = 1;

/** How the run was steered at its end. */
export function resumedOf({ name, meta }: Omit<RecordedRun, "arrays">, after: number): Resumed {
	const last: Revision | undefined = meta.revisions.at(-1);
	const { rev = 0, strengths, settings = {} } = last ?? {};
	return { type: "resumed", run: name, seq: after, newest: LAST, rev, strengths: strengths ?? {}, settings };
}

export function* framesOf(run: RecordedRun): Generator<ServerFrame> {
	const { name, meta, arrays } = run;
	const texts = textsOf(arrays.texts);
	yield startedOf(run, texts);
	for (const [part, start] of [
		["thought", meta.parts.thought],
		["answer", meta.parts.answer],
	] as const) {
		if (start !== null) yield { type: "part", run: name, seq: 0, part, start };
	}
	yield* tokensOf(run, texts);
	for (const { rev, position, strengths, settings } of meta.revisions) {
		const applied: Applied = { type: "applied", run: name, seq: 0, rev, position, strengths, settings };
		if (rev > 0) yield applied;
	}
	yield* rowsOf(run, { start: 0, count: arrays.revisions.length });
	yield* lensOf(run);
	yield* alternativesOf(run);
	const live = meta.metrics.filter(({ family }) => family === "live");
	for (const { from, ...watching } of meta.watched) {
		const own = live.filter(({ id }) => watching.metrics.includes(id));
		const watched: Watched = { type: "watched", run: name, seq: 0, position: from, ...watching, live: own };
		if (from > 0 || own.length > 0) yield watched;
	}
	for (const [start, count] of meta.cached) {
		const gap: Gap = { type: "gap", run: name, seq: 0, start, count, kept: false, cached: true };
		yield gap;
	}
	yield ending(run);
}

function startedOf({ name, meta, arrays }: RecordedRun, texts: readonly string[]): Started {
	const { tokens, spans } = meta.prompt;
	const first = meta.revisions.find(({ rev }) => rev === 0);
	return {
		type: "started",
		run: name,
		seq: 0,
		id: name,
		prompt: { ids: [...arrays.tokens.subarray(0, tokens)], texts: texts.slice(0, tokens), spans },
		metrics: meta.watched[0]?.metrics ?? meta.metrics.map(({ id }) => id),
		model: meta.model?.id ?? "",
		adapter: meta.adapter,
		strengths: first?.strengths ?? null,
		settings: first?.settings ?? null,
		sampling: meta.sampling,
		edits: meta.edits,
		origin: meta.origin,
	};
}

function* tokensOf({ name, meta, arrays }: RecordedRun, texts: readonly string[]): Generator<Tokens> {
	const prompt = meta.prompt.tokens;
	for (let start = prompt; start < texts.length; start += TOKENS) {
		const end = Math.min(start + TOKENS, texts.length);
		const [from, to] = [start - prompt, end - prompt];
		yield {
			type: "tokens",
			run: name,
			seq: 0,
			start,
			ids: [...arrays.tokens.subarray(start, end)],
			texts: texts.slice(start, end),
			logprobs: Array.from(arrays.logprobs.subarray(from, to), (one) => (Number.isNaN(one) ? null : one)),
			ranks: Array.from(arrays.ranks.subarray(from, to), (one) => (one < 1 ? null : one)),
		};
	}
}

/** The rows of a stretch of positions; nothing is said of positions that have none. */
export function* rowsOf(
	{ name, meta, arrays }: RecordedRun,
	{ start, count }: Pick<AskRows, "start" | "count">,
): Generator<Rows> {
	const { revisions, rows, layers, entropy } = arrays;
	const metrics = meta.metrics.map(({ id }) => id);
	const width = metrics.length * layers;
	const most = Math.max(1, Math.floor(MOST_NUMBERS / Math.max(1, width)));
	const end = Math.min(start + count, revisions.length);
	for (let from = start; from < end; ) {
		let to = from;
		while (to < end && to - from < most && revisions[to] !== NO_ROW) to++;
		if (to === from) {
			from += 1;
			continue;
		}
		const data = new Uint16Array((to - from) * width);
		metrics.forEach((metric, index) => {
			const values = rows.get(metric)!;
			for (let position = from; position < to; position++) {
				const numbers = values.subarray(position * layers, (position + 1) * layers);
				data.set(numbers, (position - from) * width + index * layers);
			}
		});
		yield {
			type: "rows",
			run: name,
			seq: 0,
			start: from,
			count: to - from,
			revs: [...revisions.subarray(from, to)],
			metrics,
			layers,
			dtype: "f2",
			data: bytesOf(data),
			entropy: entropy === null ? null : bytesOf(entropy.slice(from, to)),
		};
		from = to;
	}
}

/** Guesses of positions that follow each other travel together; the texts of all ids come first. */
function* lensOf({ name, arrays }: RecordedRun): Generator<Lens> {
	const { lens, names } = arrays;
	if (lens === null) return;
	const { positions, layers, top, ids, probabilities } = lens;
	const width = layers.length * top;
	const most = Math.max(1, Math.floor(MOST_NUMBERS / Math.max(1, width)));
	let told = { new_ids: [...(names?.ids ?? [])], new_texts: names === null ? [] : textsOf(names.texts) };
	for (let from = 0; from < positions.length; ) {
		let to = from + 1;
		while (to < positions.length && to - from < most && positions[to] === positions[to - 1]! + 1) to++;
		yield {
			type: "lens",
			run: name,
			seq: 0,
			start: positions[from]!,
			count: to - from,
			layers: [...layers],
			top,
			ids: bytesOf(ids.slice(from * width, to * width)),
			probabilities: bytesOf(probabilities.slice(from * width, to * width)),
			...told,
		};
		told = { new_ids: [], new_texts: [] };
		from = to;
	}
}

function* alternativesOf({ name, arrays }: RecordedRun): Generator<Alternatives> {
	const { alternatives, names } = arrays;
	if (alternatives === null) return;
	const { positions, top, ids, logprobs } = alternatives;
	let told = { new_ids: [...(names?.ids ?? [])], new_texts: names === null ? [] : textsOf(names.texts) };
	for (let from = 0; from < positions.length; ) {
		let to = from + 1;
		while (to < positions.length && to - from < TOKENS && positions[to] === positions[to - 1]! + 1) to++;
		yield {
			type: "alternatives",
			run: name,
			seq: 0,
			start: positions[from]!,
			count: to - from,
			top,
			ids: bytesOf(ids.slice(from * top, to * top)),
			logprobs: bytesOf(logprobs.slice(from * top, to * top)),
			...told,
		};
		told = { new_ids: [], new_texts: [] };
		from = to;
	}
}

/** A run that was not over when it was recorded ends with a sentence. */
function ending({ name, meta: { finished, problem } }: RecordedRun): Finished | ServerError {
	if (finished !== null) return { type: "finished", run: name, seq: LAST, ...finished };
	const message = problem?.message ?? UNFINISHED;
	// Not the code that it had: a session acts on some of them, and nothing can be done any more.
	return { type: "error", run: name, code: "unexpected", message, id: null, rev: null, field: null };
}

function bytesOf(numbers: Uint16Array | Int32Array | Float32Array): Uint8Array {
	return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}
