// What the page has of a conversation as a recording. Everything is copied as it stands: a reply that is being written
// goes on, and is in the recording as far as it had come. One run is copied after the other, since its numbers may have
// to come from disk.
import { NO_NUMBER, numberToHalf } from "../protocol/fp16";
import type { MetricInfo, ModelInfo, VectorInfo } from "../protocol/types.gen";
import type { Turn } from "../session/conversation";
import type { AlternativeStore } from "../store/alternatives";
import type { GuessStore } from "../store/guesses";
import type { Missing } from "../store/missing";
import { CHUNK, type RowStore } from "../store/rows";
import type { Run, Revision as StoredRevision, Watching } from "../store/run";
import { FORMAT, type RecordedTurn, type Revision, type RunMeta, VERSION, type Watched } from "./meta";
import { type Recording, type RunArrays, toTexts } from "./recording";

/** What is known of the server that the conversation was held with. */
export interface Known {
	software: string;
	name: string;
	metrics: readonly MetricInfo[];
	vectors: readonly VectorInfo[];
	modelNamed(id: string): ModelInfo | null;
}

/** Makes that the numbers of a run are here, until what it gives is called. */
export type Hold = (run: Run) => Promise<() => void>;

/** A turn, and the key of the turn in front of it. */
export interface Captured {
	readonly turn: Turn;
	readonly parent: string | null;
}

/** A recording of these turns, of which the last is the one that a page shows. `now` is when it is made. */
export async function captured(
	turns: readonly Captured[],
	known: Known,
	now: Date,
	hold: Hold,
): Promise<Recording> {
	const runs: Run[] = [];
	const indexOf = (run: Run): number => {
		const at = runs.indexOf(run);
		return at < 0 ? runs.push(run) - 1 : at;
	};
	const recorded = turns.map(({ turn: { key, user, before, run }, parent }): RecordedTurn => {
		return { id: key, parent, user, before: before.map(indexOf), run: indexOf(run) };
	});
	const copies: { meta: RunMeta; arrays: RunArrays }[] = [];
	for (const run of runs) {
		const release = await hold(run);
		const layers = known.modelNamed(run.model ?? "")?.layers ?? 0;
		try {
			copies.push({ meta: metaOf(run, known), arrays: arraysOf(run, layers) });
		} finally {
			release();
		}
	}
	return {
		meta: {
			format: FORMAT,
			version: VERSION,
			made_by: known.software.replace("/", " ") || "steersight",
			made_at: `${now.toISOString().slice(0, 19)}Z`,
			title: titleOf(turns.map(({ turn }) => turn)),
			turns: recorded,
			runs: copies.map(({ meta }) => meta),
		},
		runs: copies.map(({ arrays }) => arrays),
	};
}

/** What was asked first, on one line. */
export function titleOf(turns: readonly Pick<Turn, "user">[]): string {
	const asked = turns.find(({ user }) => user.trim() !== "")?.user ?? "";
	const line = asked.trim().replace(/\s+/g, " ");
	const letters = Array.from(line);
	return letters.length > 120 ? `${letters.slice(0, 119).join("")}…` : line;
}

function metaOf(run: Run, known: Known): RunMeta {
	const { tokens, rows, finished, problem } = run;
	const revisions = revisionsOf(run);
	const acted = new Set(revisions.flatMap(({ strengths }) => Object.keys(strengths ?? {})));
	const alone = tokens.length === 0 && run.delivery.remembered !== null;
	const { type: _, run: __, seq: ___, ...ending } = finished ?? { type: "", run: "", seq: 0 };
	return {
		name: run.name,
		server: known.name,
		epoch: run.delivery.epoch,
		model: run.model === null ? null : known.modelNamed(run.model),
		adapter: run.adapter ?? null,
		origin: run.origin,
		edits: [...run.edits],
		metrics: rows.metrics.map(
			(id) => [...known.metrics, ...run.live].find((one) => one.id === id) ?? unknownMetric(id),
		),
		vectors: known.vectors.filter(({ id }) => acted.has(id)),
		sampling: run.sampling,
		template: run.template,
		prompt: { tokens: tokens.promptLength, spans: tokens.prompt.spans },
		revisions,
		watched: run.watched.map((one) => watchedOf(run, one)),
		parts: alone ? { thought: null, answer: null } : { thought: tokens.thought, answer: tokens.answer },
		cached: stretchesOf(run.cached, tokens.length),
		finished: finished === null ? null : (ending as RunMeta["finished"]),
		problem,
		remembered: alone ? run.written() : null,
	};
}

/** A run that was steered while it waited for its place has no row of revision 0. */
function revisionsOf({ began, applied, tokens }: Run): Revision[] {
	const first: StoredRevision[] = applied.some(({ position }) => position === 0)
		? []
		: [{ rev: 0, position: 0, steered: began }];
	return [...first, ...applied]
		.filter(({ position }) => position <= tokens.length)
		.sort((one, other) => one.rev - other.rev)
		.map(({ rev, position, steered }) => ({
			rev,
			position,
			strengths: steered?.strengths ?? null,
			settings: steered?.settings ?? {},
		}));
}

/** What somebody else asked for is not told: it is read off what came. */
function watchedOf(run: Run, { from, metrics, ...asked }: Watching): Watched {
	const { guesses, rows, alternatives } = run;
	const { layers, top } = guesses;
	const stride = layers.length > 1 ? layers[1]! - layers[0]! : 1;
	const known = from > 0 || run.asked !== null;
	const seen = {
		lens: layers.length === 0 ? null : { stride, top },
		entropy: rows.entropyCode(0) !== null,
		alternatives: alternatives.top,
	};
	return { from, metrics: [...metrics], ...(known ? asked : seen) };
}

/** A vector's projections go from the server's list with it. */
function unknownMetric(id: string): MetricInfo {
	return {
		id,
		label: id,
		description: "",
		unit: "",
		transform: "linear",
		scale: { kind: "sequential", lo: null, hi: null, mid: null },
		family: "own",
		cost: "",
		default: false,
		error: null,
	};
}

function arraysOf(run: Run, layersOfModel: number): RunArrays {
	const { tokens, rows, guesses } = run;
	const { prompt } = tokens;
	const alternatives = alternativesOf(run.alternatives, tokens.length);
	const layers = rows.layers || layersOfModel;
	// Rows come by themselves, and may be ahead of their tokens for a moment.
	const columns = Math.min(rows.columns, tokens.length);
	const lens = guesses.layers.length === 0 ? null : lensOf(guesses, tokens.length);
	const found = new Set([...(lens?.ids ?? []), ...(alternatives?.ids ?? [])]);
	const named = [...new Map([...guesses.texts, ...run.alternatives.texts])]
		.filter(([id]) => found.has(id))
		.sort(([one], [other]) => one - other);
	return {
		tokens: Int32Array.from([...prompt.ids, ...tokens.ids]),
		texts: toTexts([...prompt.texts, ...tokens.texts]),
		logprobs: Float32Array.from(tokens.logprobs, (one) => one ?? Number.NaN),
		ranks: Int32Array.from(tokens.ranks, (one) => one ?? 0),
		revisions: Int32Array.from({ length: columns }, (_, position) => rows.rev(position)),
		layers,
		rows: new Map(rows.metrics.map((metric) => [metric, numbersOf(rows, metric, columns)])),
		entropy:
			rows.entropyCode(0) === null
				? null
				: Uint16Array.from({ length: columns }, (_, position) => rows.entropyCode(position)!),
		lens,
		alternatives,
		names:
			named.length === 0
				? null
				: { ids: Int32Array.from(named, ([id]) => id), texts: toTexts(named.map(([, text]) => text)) },
	};
}

/** [columns, layers] of the chunks that a metric lies in. */
function numbersOf(rows: RowStore, metric: string, columns: number): Uint16Array<ArrayBuffer> {
	const { layers } = rows;
	const numbers = new Uint16Array(columns * layers).fill(NO_NUMBER);
	for (let start = 0; start < columns; start += CHUNK) {
		const chunk = rows.chunk(metric, start / CHUNK);
		const count = Math.min(CHUNK, columns - start) * layers;
		if (chunk !== undefined) numbers.set(chunk.subarray(0, count), start * layers);
	}
	return numbers;
}

function lensOf(guesses: GuessStore, length: number): RunArrays["lens"] {
	const { layers, top } = guesses;
	const positions = guesses.positions.filter((position) => position < length);
	const width = layers.length * top;
	const ids = new Int32Array(positions.length * width);
	const probabilities = new Uint16Array(positions.length * width);
	positions.forEach((position, index) => {
		const row = guesses.row(position);
		ids.set(row.ids, index * width);
		probabilities.set(
			Uint16Array.from(row.probabilities, (one) => numberToHalf(one)),
			index * width,
		);
	});
	return { positions: Int32Array.from(positions), layers: Int32Array.from(layers), top, ids, probabilities };
}

/** A frame that named fewer tokens leaves the last places empty. */
function alternativesOf(alternatives: AlternativeStore, length: number): RunArrays["alternatives"] {
	const positions = alternatives.positions.filter((position) => position < length);
	if (positions.length === 0) return null;
	const { top } = alternatives;
	const ids = new Int32Array(positions.length * top).fill(-1);
	const logprobs = new Float32Array(positions.length * top).fill(Number.NaN);
	positions.forEach((position, index) => {
		const row = alternatives.row(position)!;
		ids.set(row.ids, index * top);
		logprobs.set(row.logprobs, index * top);
	});
	return { positions: Int32Array.from(positions), top, ids, logprobs };
}

function stretchesOf(missing: Missing, length: number): [number, number][] {
	return [...missing.within({ start: 0, count: length })].map(({ start, count }) => [start, count]);
}
