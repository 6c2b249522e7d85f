// The numbers of one run: for each metric chunks of CHUNK positions, position-major (position x layers), as the half
// floats that the server sent (transform not undone). A position without a row has revision -1 and NaN for a number;
// a reader of single numbers gets undefined there, so that a missing row is never taken for zeros.
//
// Chunks are made when a row falls into them and never move or grow: a long reply costs each row the same, and what
// reads them (a map, a recording, a store on disk) may take a chunk as it is.
//
// The chunks of a run that is not shown may lie on the shelf (`shelf.ts`), and all else of it stays here. Whoever reads
// numbers asks `state` first: what is on the shelf is neither missing nor zero.
//
// Rows may arrive twice, late or with holes; every arrival is logged in `changes`, which is what lets the
// heatmap draw new columns only.
import { HALF_VALUES, halfCodes, isFiniteCode, NO_NUMBER } from "../protocol/fp16";
import type { Rows } from "../protocol/types.gen";

export const NO_ROW = -1;
/** Positions in a chunk. */
export const CHUNK = 512;

export interface Boundary {
	rev: number;
	/** First position whose row was computed with `rev`. */
	position: number;
}

export interface Change {
	start: number;
	end: number;
}

/** The chunks of one metric, with a hole where no row of the metric fell into one. */
export type Chunks = Uint16Array[];

export class RowStore {
	layers = 0;
	/** One past the last position that has a row. */
	columns = 0;
	/** Positions that have a row. */
	received = 0;
	readonly changes: Change[] = [];
	/** Per metric its chunks; of a store on the shelf none. */
	#chunks = new Map<string, Chunks>();
	/** Bytes of all chunks that are here. */
	#bytes = 0;
	/** Rows that came while the chunks were on the shelf; null while they are here. */
	#late: Rows[] | null = null;
	#entropy: Uint16Array | null = null;
	#revs = new Int32Array(0);
	/** Per metric the first position after 0 with a number; a metric without any is missing. */
	#first = new Map<string, number>();
	#boundaries: Boundary[] = [];
	#scanned = 0;
	#lastRev = 0;

	/** Take one rows frame. Throws a sentence when its shape contradicts its bytes or the rows before it. */
	append(frame: Rows): void {
		const { start, count, metrics } = frame;
		if (this.layers !== 0 && frame.layers !== this.layers) {
			throw new Error(`Rows with ${frame.layers} layers came after rows with ${this.layers}.`);
		}
		const codes = halfCodes(frame.data);
		const entropy = frame.entropy === null ? null : halfCodes(frame.entropy);
		hold(count, codes.length, "numbers", count * metrics.length * frame.layers);
		hold(count, frame.revs.length, "revisions", count);
		if (entropy !== null) hold(count, entropy.length, "entropies", count);
		this.layers = frame.layers;
		if (count === 0) return;
		const end = start + count;
		this.#reserve(end);
		metrics.forEach((metric, index) => {
			if (!this.#chunks.has(metric)) this.#chunks.set(metric, []);
			this.#note(metric, codes, index * this.layers, metrics.length * this.layers, start, count);
		});
		if (this.#late === null) this.#putAll(frame, codes);
		else this.#late.push(frame);
		if (entropy !== null) {
			this.#entropy ??= new Uint16Array(this.#revs.length).fill(NO_NUMBER);
			this.#entropy.set(entropy, start);
		}
		for (let i = 0; i < count; i++) {
			if (this.#revs[start + i] === NO_ROW) this.received += 1;
			this.#revs[start + i] = frame.revs[i]!;
		}
		this.columns = Math.max(this.columns, end);
		this.changes.push({ start, end });
		if (start < this.#scanned) this.#rescan();
	}

	/** Keep which revision every row had, and no number. */
	dropNumbers(): void {
		this.#chunks.clear();
		this.#bytes = 0;
		this.#late = null;
		this.#first.clear();
		this.#entropy = null;
	}

	/** Whether the numbers can be read, or lie on the shelf. */
	get state(): "here" | "shelved" {
		return this.#late === null ? "here" : "shelved";
	}

	/** Rows came that wait for the numbers on the shelf. */
	get late(): boolean {
		return this.#late !== null && this.#late.length > 0;
	}

	/** The chunks of a metric as they are, for the shelf. */
	chunks(metric: string): Readonly<Chunks> {
		this.#mustBeHere();
		return this.#chunks.get(metric) ?? [];
	}

	/** The numbers lie elsewhere from now on: let them go here. */
	shelve(): void {
		for (const metric of this.#chunks.keys()) this.#chunks.set(metric, []);
		this.#bytes = 0;
		this.#late ??= [];
	}

	/** The numbers are back from the shelf; rows that came meanwhile go into them. */
	bring(found: ReadonlyMap<string, Chunks>): void {
		const late = this.#late;
		if (late === null) return;
		for (const [metric, chunks] of found) {
			this.#chunks.set(metric, chunks);
			for (const chunk of chunks) this.#bytes += chunk?.byteLength ?? 0;
		}
		this.#late = null;
		for (const frame of late) this.#putAll(frame, halfCodes(frame.data));
	}

	/** Metrics of which any row was had, in the order in which they came. */
	get metrics(): readonly string[] {
		return [...this.#chunks.keys()];
	}

	/** Bytes of all numbers that are here. */
	get size(): number {
		let late = 0;
		for (const { data } of this.#late ?? []) late += data.byteLength;
		return this.#bytes + late + this.#revs.byteLength + (this.#entropy?.byteLength ?? 0);
	}

	has(position: number): boolean {
		return this.rev(position) !== NO_ROW;
	}

	rev(position: number): number {
		return position >= 0 && position < this.columns ? this.#revs[position]! : NO_ROW;
	}

	/** Whether any row carried a metric. */
	carries(metric: string): boolean {
		return this.#chunks.has(metric);
	}

	/**
	 * The numbers of a metric at positions [CHUNK * index, CHUNK * (index + 1)), [CHUNK, layers] as half floats;
	 * undefined where no row of the metric fell among them. Throws while they lie on the shelf.
	 */
	chunk(metric: string, index: number): Uint16Array | undefined {
		this.#mustBeHere();
		return this.#chunks.get(metric)?.[index];
	}

	/**
	 * One number as sent, undefined when that row, layer or metric is missing, and null while the numbers lie on the
	 * shelf.
	 */
	value(metric: string, position: number, layer: number): number | null | undefined {
		if (!this.has(position) || layer < 0 || layer >= this.layers) return undefined;
		const chunks = this.#chunks.get(metric);
		if (chunks === undefined) return undefined;
		if (this.#late !== null) return null;
		const code = chunks[Math.floor(position / CHUNK)]?.[(position % CHUNK) * this.layers + layer];
		return code === undefined ? Number.NaN : HALF_VALUES[code];
	}

	/** The first position after 0 at which a metric has a number in any layer, or null. */
	first(metric: string): number | null {
		return this.#first.get(metric) ?? null;
	}

	/** Nats of the distribution from which the token after a position was drawn; null where not known. */
	entropy(position: number): number | null {
		const code = this.has(position) ? this.#entropy?.[position] : undefined;
		return code === undefined || !isFiniteCode(code) ? null : HALF_VALUES[code]!;
	}

	/** The same as the half float that was sent, NaN where not known; null where no row brought any. */
	entropyCode(position: number): number | null {
		return this.#entropy === null ? null : this.has(position) ? this.#entropy[position]! : NO_NUMBER;
	}

	/** Where the revision in force changed, in order of position. Revision 0 at the start is no change. */
	boundaries(): readonly Boundary[] {
		for (; this.#scanned < this.columns; this.#scanned++) {
			const rev = this.#revs[this.#scanned]!;
			if (rev === NO_ROW || rev === this.#lastRev) continue;
			this.#boundaries.push({ rev, position: this.#scanned });
			this.#lastRev = rev;
		}
		return this.#boundaries;
	}

	#mustBeHere(): void {
		if (this.#late === null) return;
		throw new Error("The numbers of this run lie on the shelf: they must be fetched before they are read.");
	}

	#putAll({ metrics, start, count }: Rows, codes: Uint16Array): void {
		metrics.forEach((metric, index) => {
			this.#put(metric, codes, index * this.layers, metrics.length * this.layers, start, count);
		});
	}

	/** `codes` has a row of `width` numbers per position, and this metric's begin `offset` behind the row's first. */
	#put(
		metric: string,
		codes: Uint16Array,
		offset: number,
		width: number,
		start: number,
		count: number,
	): void {
		const chunks = this.#chunks.get(metric)!;
		const { layers } = this;
		for (let i = 0; i < count; i++) {
			const position = start + i;
			const index = Math.floor(position / CHUNK);
			let chunk = chunks[index];
			if (chunk === undefined) {
				// NaN and not zero: a row that lacks this metric has no value, and must not look like one.
				chunk = new Uint16Array(CHUNK * layers).fill(NO_NUMBER);
				chunks[index] = chunk;
				this.#bytes += chunk.byteLength;
			}
			const from = i * width + offset;
			chunk.set(codes.subarray(from, from + layers), (position % CHUNK) * layers);
		}
	}

	/** Whether these are the first numbers of the metric. */
	#note(
		metric: string,
		codes: Uint16Array,
		offset: number,
		width: number,
		start: number,
		count: number,
	): void {
		const until = Math.min(start + count, this.#first.get(metric) ?? Number.POSITIVE_INFINITY);
		for (let position = Math.max(1, start); position < until; position++) {
			const from = (position - start) * width + offset;
			for (let i = from; i < from + this.layers; i++) {
				if (!isFiniteCode(codes[i]!)) continue;
				this.#first.set(metric, position);
				return;
			}
		}
	}

	#rescan(): void {
		this.#boundaries = [];
		this.#scanned = 0;
		this.#lastRev = 0;
	}

	/** What is one number per position grows by doubling: of the longest text it is some 50 kB. */
	#reserve(positions: number): void {
		const capacity = this.#revs.length;
		if (positions <= capacity) return;
		const room = Math.max(positions, capacity * 2, 256);
		const revs = new Int32Array(room).fill(NO_ROW);
		revs.set(this.#revs);
		this.#revs = revs;
		if (this.#entropy === null) return;
		const entropy = new Uint16Array(room).fill(NO_NUMBER);
		entropy.set(this.#entropy);
		this.#entropy = entropy;
	}
}

/** A frame must hold as much as it says, or what it says would be allocated for nothing. */
function hold(positions: number, found: number, what: string, wanted: number): void {
	if (found === wanted) return;
	throw new Error(`Rows of ${positions} positions hold ${found} ${what}, not ${wanted}.`);
}
