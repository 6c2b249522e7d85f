// Fields that are made of others: the difference of two, and one against what is usual. All of it in sent numbers, so
// that of a metric that is sent as a logarithm the difference is the logarithm of a ratio.
import { HALF_VALUES, NO_NUMBER, numberToHalf } from "../protocol/fp16";
import type { Field } from "./field";
import { valueAt } from "./field";
import { JoinedChanges, MadeChunks } from "./made";
import { CHUNK, type Change } from "./rows";

/** Which positions of two runs belong together; null for one that has no partner. Both ways never fall. */
export interface Alignment {
	toOther(position: number): number | null;
	toOne(position: number): number | null;
}

/** Position by position, as runs of one prompt are before and behind their first difference. */
export const SAME_POSITIONS: Alignment = { toOther: (position) => position, toOne: (position) => position };

/** One field minus another, at the positions of the first. */
export class DifferenceField implements Field {
	readonly #changes = new JoinedChanges();
	readonly #chunks = new MadeChunks(this.#changes.all, (...at) => this.#make(...at));

	constructor(
		private readonly one: Field,
		private readonly other: Field,
		private readonly alignment: Alignment = SAME_POSITIONS,
	) {}

	sync(): void {
		this.one.sync();
		this.other.sync();
		this.#changes.take(this.one.changes);
		this.#changes.take(this.other.changes, (change) => this.#placed(change));
	}

	get layers(): number {
		return this.one.layers;
	}

	get columns(): number {
		return this.one.columns;
	}

	get empty(): boolean {
		return this.one.empty || this.other.empty || this.one.layers !== this.other.layers;
	}

	get shelved(): boolean {
		return this.one.shelved || this.other.shelved;
	}

	get changes(): readonly Change[] {
		return this.#changes.all;
	}

	get first(): number | null {
		const [one, other] = [this.one.first, this.other.first];
		if (one === null || other === null) return null;
		const there = this.alignment.toOne(other);
		return there === null ? one : Math.max(one, there);
	}

	chunk(index: number): Uint16Array | undefined {
		return this.#chunks.get(index, this.layers);
	}

	/** Where a change of the other field is in this one. */
	#placed({ start, end }: Change): Change | null {
		let [from, to] = [Number.POSITIVE_INFINITY, 0];
		for (let position = start; position < end; position++) {
			const here = this.alignment.toOne(position);
			if (here === null) continue;
			from = Math.min(from, here);
			to = Math.max(to, here + 1);
		}
		return from < to ? { start: from, end: to } : null;
	}

	#make(codes: Uint16Array, first: number, from: number, to: number): void {
		const { layers } = this;
		const mine = this.one.chunk(first / CHUNK);
		for (let position = from; position < to; position++) {
			const there = this.alignment.toOther(position);
			const theirs = there === null ? undefined : this.other.chunk(Math.floor(there / CHUNK));
			const at = (position - first) * layers;
			const away = ((there ?? 0) % CHUNK) * layers;
			for (let layer = 0; layer < layers; layer++) {
				codes[at + layer] =
					mine === undefined || theirs === undefined
						? NO_NUMBER
						: numberToHalf(HALF_VALUES[mine[at + layer]!]! - HALF_VALUES[theirs[away + layer]!]!);
			}
		}
	}
}

/** A field minus one number per layer. */
export class RelativeField implements Field {
	readonly #chunks: MadeChunks;

	/** `base` has a number for each layer; NaN where there is none to compare with. */
	constructor(
		private readonly field: Field,
		readonly base: Float32Array,
	) {
		this.#chunks = new MadeChunks(field.changes, (...at) => this.#make(...at));
	}

	sync(): void {
		this.field.sync();
	}

	get layers(): number {
		return this.field.layers;
	}

	get columns(): number {
		return this.field.columns;
	}

	get empty(): boolean {
		return this.field.empty || this.base.length !== this.layers;
	}

	get shelved(): boolean {
		return this.field.shelved;
	}

	get changes(): readonly Change[] {
		return this.field.changes;
	}

	get first(): number | null {
		return this.field.first;
	}

	chunk(index: number): Uint16Array | undefined {
		return this.#chunks.get(index, this.layers);
	}

	#make(codes: Uint16Array, first: number, from: number, to: number): void {
		const { layers, base } = this;
		const numbers = this.field.chunk(first / CHUNK);
		for (let at = (from - first) * layers; at < (to - first) * layers; at++) {
			codes[at] =
				numbers === undefined ? NO_NUMBER : numberToHalf(HALF_VALUES[numbers[at]!]! - base[at % layers]!);
		}
	}
}

/** Of a stretch of positions as many are looked at as a median needs. */
const MOST_SAMPLED = 512;

/** What is usual for each layer of a field: the median over positions [start, end), position 0 left out. */
export function usualOf(field: Field, start = 1, end = field.columns): Float32Array {
	return perLayer(field, start, end, (numbers) => {
		const sorted = numbers.sort();
		const middle = sorted.length >> 1;
		return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
	});
}

/** The mean of each layer over positions [start, end), of all of them. */
export function meanOf(field: Field, start: number, end: number): Float32Array {
	const mean = (numbers: Float32Array) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
	return perLayer(field, start, end, mean, Number.POSITIVE_INFINITY);
}

function perLayer(
	field: Field,
	start: number,
	end: number,
	of: (numbers: Float32Array) => number,
	most = MOST_SAMPLED,
): Float32Array {
	const from = Math.max(start, 1);
	const stride = Math.max(1, Math.ceil((end - from) / most));
	return Float32Array.from({ length: field.layers }, (_, layer) => {
		const numbers: number[] = [];
		for (let position = from; position < end; position += stride) {
			const value = valueAt(field, position, layer);
			if (Number.isFinite(value)) numbers.push(value);
		}
		return numbers.length === 0 ? Number.NaN : of(Float32Array.from(numbers));
	});
}
