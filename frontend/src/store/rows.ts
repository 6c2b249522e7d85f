// The numbers of one run: for each metric one growing Float32Array, position-major (position x layers), as
// the server sent them (transform not undone). A position without a row has revision -1 and no values; a
// reader must ask `has` first, so that a missing row is never taken for zeros.
//
// Rows may arrive twice, late or with holes; every arrival is logged in `changes`, which is what lets the
// heatmap draw new columns only.
import { decodeHalves } from "../protocol/fp16";
import type { Rows } from "../protocol/types.gen";

export const NO_ROW = -1;

export interface Boundary {
	rev: number;
	/** First position whose row was computed with `rev`. */
	position: number;
}

export interface Change {
	start: number;
	end: number;
}

export class RowStore {
	layers = 0;
	/** One past the last position that has a row. */
	columns = 0;
	/** Positions that have a row. */
	received = 0;
	readonly changes: Change[] = [];
	#values = new Map<string, Float32Array>();
	#entropy: Float32Array | null = null;
	#revs = new Int32Array(0);
	/** Per metric the first position after 0 with a number; a metric without any is missing. */
	#first = new Map<string, number>();
	#boundaries: Boundary[] = [];
	#scanned = 0;
	#lastRev = 0;

	/** Take one rows frame. Throws a sentence when its shape contradicts its bytes or the rows before it. */
	append(frame: Rows): void {
		if (this.layers !== 0 && frame.layers !== this.layers) {
			throw new Error(`Rows with ${frame.layers} layers came after rows with ${this.layers}.`);
		}
		const decoded = decodeHalves(frame.data);
		const width = frame.metrics.length * frame.layers;
		const entropy = frame.entropy === null ? null : decodeHalves(frame.entropy);
		hold(frame.count, decoded.length, "numbers", frame.count * width);
		hold(frame.count, frame.revs.length, "revisions", frame.count);
		if (entropy !== null) hold(frame.count, entropy.length, "entropies", frame.count);
		this.layers = frame.layers;
		const end = frame.start + frame.count;
		if (frame.count === 0) return;
		this.#reserve(end, frame.metrics);
		frame.metrics.forEach((metric, index) => {
			const target = this.#values.get(metric)!;
			for (let i = 0; i < frame.count; i++) {
				const from = i * width + index * this.layers;
				const numbers = decoded.subarray(from, from + this.layers);
				target.set(numbers, (frame.start + i) * this.layers);
				this.#note(metric, frame.start + i, numbers);
			}
		});
		if (entropy !== null) {
			this.#entropy ??= new Float32Array(this.#revs.length).fill(Number.NaN);
			this.#entropy.set(entropy, frame.start);
		}
		for (let i = 0; i < frame.count; i++) {
			const position = frame.start + i;
			if (this.#revs[position] === NO_ROW) this.received += 1;
			this.#revs[position] = frame.revs[i]!;
		}
		this.columns = Math.max(this.columns, end);
		this.changes.push({ start: frame.start, end });
		if (frame.start < this.#scanned) this.#rescan();
	}

	/** Keep which revision every row had, and no number. */
	dropNumbers(): void {
		this.#values.clear();
		this.#first.clear();
		this.#entropy = null;
	}

	has(position: number): boolean {
		return this.rev(position) !== NO_ROW;
	}

	rev(position: number): number {
		return position >= 0 && position < this.columns ? this.#revs[position]! : NO_ROW;
	}

	/** All values of a metric, `columns` x `layers` used; undefined when no row carried it. */
	values(metric: string): Float32Array | undefined {
		return this.#values.get(metric);
	}

	/** One number as sent, or undefined when that row, layer or metric is missing. */
	value(metric: string, position: number, layer: number): number | undefined {
		if (!this.has(position) || layer < 0 || layer >= this.layers) return undefined;
		return this.#values.get(metric)?.[position * this.layers + layer];
	}

	/** The first position after 0 at which a metric has a number in any layer, or null. */
	first(metric: string): number | null {
		return this.#first.get(metric) ?? null;
	}

	/** Nats of the distribution from which the token after a position was drawn; null where not known. */
	entropy(position: number): number | null {
		const value = this.has(position) ? this.#entropy?.[position] : undefined;
		return value === undefined || Number.isNaN(value) ? null : value;
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

	#note(metric: string, position: number, numbers: Float32Array): void {
		if (position === 0 || position >= (this.#first.get(metric) ?? Number.POSITIVE_INFINITY)) return;
		if (numbers.some(Number.isFinite)) this.#first.set(metric, position);
	}

	#rescan(): void {
		this.#boundaries = [];
		this.#scanned = 0;
		this.#lastRev = 0;
	}

	#reserve(positions: number, metrics: readonly string[]): void {
		const capacity = this.#revs.length;
		if (positions > capacity) {
			const grown = Math.max(positions, capacity * 2, 256);
			const revs = new Int32Array(grown).fill(NO_ROW);
			revs.set(this.#revs);
			this.#revs = revs;
			if (this.#entropy !== null) {
				const copy = new Float32Array(grown).fill(Number.NaN);
				copy.set(this.#entropy);
				this.#entropy = copy;
			}
			for (const [metric, values] of this.#values) {
				const copy = new Float32Array(grown * this.layers).fill(Number.NaN);
				copy.set(values);
				this.#values.set(metric, copy);
			}
		}
		for (const metric of metrics) {
			if (!this.#values.has(metric)) {
				// NaN and not zero: a row that lacks this metric has no value, and must not look like one.
				this.#values.set(metric, new Float32Array(this.#revs.length * this.layers).fill(Number.NaN));
			}
		}
	}
}

/** A frame must hold as much as it says, or what it says would be allocated for nothing. */
function hold(positions: number, found: number, what: string, wanted: number): void {
	if (found === wanted) return;
	throw new Error(`Rows of ${positions} positions hold ${found} ${what}, not ${wanted}.`);
}
