// A recording in memory: what `meta.json` says, and the arrays of each run as the file has them. What reads one (a
// file, a conversation on the page) makes this; what shows or saves one takes it.
import type { Meta } from "./meta";

/** Texts one after the other, in UTF-8, and where each begins; the last offset is the end of all. */
export interface Texts {
	bytes: Uint8Array<ArrayBuffer>;
	/** One more than there are texts. */
	offsets: Int32Array<ArrayBuffer>;
}

export interface LensArrays {
	positions: Int32Array<ArrayBuffer>;
	layers: Int32Array<ArrayBuffer>;
	top: number;
	/** positions x layers x top, likeliest first. */
	ids: Int32Array<ArrayBuffer>;
	/** Half floats, as `ids`. */
	probabilities: Uint16Array<ArrayBuffer>;
}

export interface AlternativeArrays {
	positions: Int32Array<ArrayBuffer>;
	top: number;
	/** positions x top, likeliest first. */
	ids: Int32Array<ArrayBuffer>;
	/** Nats, as `ids`. */
	logprobs: Float32Array<ArrayBuffer>;
}

export interface RunArrays {
	/** Ids of prompt and reply. */
	tokens: Int32Array<ArrayBuffer>;
	/** Of each token. */
	texts: Texts;
	/** Of the reply: nats, NaN where not known. */
	logprobs: Float32Array<ArrayBuffer>;
	/** Of the reply: 1 is the likeliest, 0 not known. */
	ranks: Int32Array<ArrayBuffer>;
	/** Of each column, -1 where it has no row. */
	revisions: Int32Array<ArrayBuffer>;
	layers: number;
	/** Half floats, columns x layers, by the metrics' ids. */
	rows: Map<string, Uint16Array<ArrayBuffer>>;
	/** Half floats per column; null where never asked for. */
	entropy: Uint16Array<ArrayBuffer> | null;
	lens: LensArrays | null;
	alternatives: AlternativeArrays | null;
	/** Texts of ids that `lens` and `alternatives` name. */
	names: { ids: Int32Array<ArrayBuffer>; texts: Texts } | null;
}

export interface Recording {
	meta: Meta;
	/** As `meta.runs`. */
	runs: RunArrays[];
}

/** Columns that a run's rows have: one past the last position with a row. */
export function columnsOf({ revisions }: RunArrays): number {
	return revisions.length;
}

export function textsOf({ bytes, offsets }: Texts): string[] {
	const decoder = new TextDecoder();
	return Array.from({ length: Math.max(0, offsets.length - 1) }, (_, index) =>
		decoder.decode(bytes.subarray(offsets[index]!, offsets[index + 1]!)),
	);
}

export function toTexts(texts: readonly string[]): Texts {
	const encoder = new TextEncoder();
	const pieces = texts.map((text) => encoder.encode(text));
	const offsets = new Int32Array(texts.length + 1);
	pieces.forEach(({ length }, index) => {
		offsets[index + 1] = offsets[index]! + length;
	});
	const bytes = new Uint8Array(offsets[texts.length]!);
	pieces.forEach((piece, index) => {
		bytes.set(piece, offsets[index]!);
	});
	return { bytes, offsets };
}
