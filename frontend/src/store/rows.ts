// The numbers of one run: for each metric chunks of CHUNK positions, position-major (position x layers), as the half
// floats that the server sent (transform not undone). A position without a row has revision -1 and NaN for a number;
// a reader of single numbers gets undefined there, so that a missing row is never taken for zeros.
//
// Chunks are made when a row falls into them and never move or grow: a long reply costs each row the same, and what
// reads them (a map, a recording, a store on disk) may take a chunk as it is.
//
// Chunks that nobody looks at may lie on the shelf (`shelf.ts`), those of all metrics for the same positions together: a
// part. All else stays here. Whoever reads numbers asks first whether they are here: what is on the shelf is neither
// missing nor zero.
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

/** By metric, its numbers at positions [CHUNK * index, CHUNK * (index + 1)); only metrics that have any there. */
export type Part = Map<string, Uint16Array>;

export class RowStore {
	layers = 0;
	/** One past the last position that has a row. */
	columns = 0;
	/** Positions that have a row. */
	received = 0;
	readonly changes: Change[] = [];
	/** Per metric its chunks; a hole where no row of the metric fell into one, and where it is on the shelf. */
	#chunks = new Map<string, Uint16Array[]>();
	/** Bytes of all chunks that are here. */
	#bytes = 0;
	/** Indices of the parts on the shelf. */
	#away = new Set<number>();
	/** Rows that came for parts on the shelf. */
	#late: Rows[] = [];
	/** Per part, how many changes there were when rows of it came last. */
	#versions: number[] = [];
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
		let late = false;
		for (const index of partsOf(frame)) {
			if (this.#away.has(index)) late = true;
			else this.#putAll(frame, codes, index);
			this.#versions[index] = this.changes.length + 1;
		}
		if (late) this.#late.push(frame);
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
		this.#away.clear();
		this.#late = [];
		this.#first.clear();
		this.#entropy = null;
	}

	/** Whether all numbers can be read, or some lie on the shelf. */
	get state(): "here" | "shelved" {
		return this.#away.size === 0 ? "here" : "shelved";
	}

	/** Indices of the parts on the shelf. */
	get away(): ReadonlySet<number> {
		return this.#away;
	}

	/** Whether a part is on the shelf and rows came that wait for it. */
	late(index: number): boolean {
		return this.#away.has(index) && this.#late.some((frame) => partsOf(frame).includes(index));
	}

	/** Parts that there are, here or on the shelf. */
	get parts(): number {
		return this.metrics.length === 0 ? 0 : Math.ceil(this.columns / CHUNK);
	}

	/** Another number whenever rows of a part have come. */
	version(index: number): number {
		return this.#versions[index] ?? 0;
	}

	/** The chunks of a part as they are, for the shelf. */
	part(index: number): Part {
		this.#mustBeHere(index);
		const part: Part = new Map();
		for (const [metric, chunks] of this.#chunks) {
			const chunk = chunks[index];
			if (chunk !== undefined) part.set(metric, chunk);
		}
		return part;
	}

	/** A part lies elsewhere from now on: let it go here. */
	shelve(index: number): void {
		for (const [metric] of this.part(index)) {
			const chunks = this.#chunks.get(metric)!;
			this.#bytes -= chunks[index]!.byteLength;
			delete chunks[index];
			this.#away.add(index);
		}
	}

	/** A part is back from the shelf; rows that came meanwhile go into it. */
	bring(index: number, part: Part): void {
		if (!this.#away.delete(index)) return;
		for (const [metric, chunk] of part) {
			this.#chunks.get(metric)![index] = chunk;
			this.#bytes += chunk.byteLength;
		}
		for (const frame of this.#late) {
			if (partsOf(frame).includes(index)) this.#putAll(frame, halfCodes(frame.data), index);
		}
		this.#late = this.#late.filter((frame) => partsOf(frame).some((one) => this.#away.has(one)));
	}

	/** Metrics of which any row was had, in the order in which they came. */
	get metrics(): readonly string[] {
		return [...this.#chunks.keys()];
	}

	/** Bytes of all numbers that are here. */
	get size(): number {
		let late = 0;
		for (const { data } of this.#late) late += data.byteLength;
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
		this.#mustBeHere(index);
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
		if (this.#away.has(Math.floor(position / CHUNK))) return null;
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

	#mustBeHere(index: number): void {
		if (!this.#away.has(index)) return;
		throw new Error("These numbers lie on the shelf: they must be fetched before they are read.");
	}

	/** Put in those of a frame's rows that fall into a part. */
	#putAll({ metrics, start, count }: Rows, codes: Uint16Array, index: number): void {
		const width = metrics.length * this.layers;
		const from = Math.max(start, index * CHUNK);
		const to = Math.min(start + count, (index + 1) * CHUNK);
		metrics.forEach((metric, place) => {
			this.#put(metric, codes, (from - start) * width + place * this.layers, width, from, to - from);
		});
	}

	/**
	 * `codes` has a row of `width` numbers per position, and this metric's begin at `offset`. All positions lie in one
	 * chunk.
	 */
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
		const index = Math.floor(start / CHUNK);
		let chunk = chunks[index];
		if (chunk === undefined) {
			// NaN and not zero: a row that lacks this metric has no value, and must not look like one.
			chunk = new Uint16Array(CHUNK * layers).fill(NO_NUMBER);
			chunks[index] = chunk;
			this.#bytes += chunk.byteLength;
		}
		for (let i = 0; i < count; i++) {
			const position = start + i;
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

/** Indices of the parts that rows of a frame fall into. */
function partsOf({ start, count }: Rows): number[] {
	const first = Math.floor(start / CHUNK);
	return Array.from({ length: Math.ceil((start + count) / CHUNK) - first }, (_, at) => first + at);
}

/** A frame must hold as much as it says, or what it says would be allocated for nothing. */
function hold(positions: number, found: number, what: string, wanted: number): void {
	if (found === wanted) return;
	throw new Error(`Rows of ${positions} positions hold ${found} ${what}, not ${wanted}.`);
}
