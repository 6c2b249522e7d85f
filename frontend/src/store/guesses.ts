// What the raw logit lens named as the likeliest next tokens, of one run: per position and layer that was
// read, `top` token ids with probabilities, likeliest first. What stands at position p was guessed for
// position p + 1.
//
// The lens reads from the last prompt token on, so the arrays begin at the first position that came and not
// at 0: a long prompt costs nothing here.
import { decodeHalves } from "../protocol/fp16";
import type { Lens } from "../protocol/types.gen";

export interface Guess {
	id: number;
	/** "" for a token that the server has not told the text of. */
	text: string;
	probability: number;
}

/** For an id: the lens did not read this layer at this position, or named fewer tokens there. */
const NOT_READ = -1;

export class GuessStore {
	/** Layers that were read anywhere, ascending; empty until the first frame. */
	layers: readonly number[] = [];
	/** The most tokens that were named. */
	top = 0;
	#base = 0;
	/** Positions that the arrays have room for, from `#base` on. */
	#room = 0;
	#known = new Uint8Array(0);
	#ids = new Int32Array(0);
	#probabilities = new Float32Array(0);
	#texts = new Map<number, string>();

	/** Take one lens frame. Throws a sentence when its shape contradicts its bytes. */
	append(frame: Lens): void {
		const probabilities = decodeHalves(frame.probabilities);
		const [tokens, wanted] = [frame.ids.byteLength / 4, frame.count * frame.layers.length * frame.top];
		if (tokens !== wanted || probabilities.length !== wanted) {
			throw new Error(
				`Guesses of ${frame.count} positions hold ${tokens} tokens and ` +
					`${probabilities.length} probabilities, not ${wanted}.`,
			);
		}
		frame.new_ids.forEach((id, index) => {
			this.#texts.set(id, frame.new_texts[index] ?? "");
		});
		if (frame.count === 0) return;
		this.#widen(frame);
		this.#reserve(frame.start, frame.start + frame.count);
		const at = frame.start - this.#base;
		const width = this.#width;
		this.#ids.fill(NOT_READ, at * width, (at + frame.count) * width);
		this.#probabilities.fill(Number.NaN, at * width, (at + frame.count) * width);
		const places = frame.layers.map((layer) => this.layers.indexOf(layer) * this.top);
		// A frame's bytes may start at an odd offset, which a typed array over them would refuse.
		const view = new DataView(frame.ids.buffer, frame.ids.byteOffset, frame.ids.byteLength);
		for (let row = 0, from = 0; row < frame.count; row++) {
			for (const place of places) {
				const to = (at + row) * width + place;
				for (let i = 0; i < frame.top; i++, from++) {
					this.#ids[to + i] = view.getInt32(4 * from, true);
					this.#probabilities[to + i] = probabilities[from]!;
				}
			}
		}
		this.#known.fill(1, at, at + frame.count);
	}

	/** Make room for a frame's layers and guesses: the lens may be changed in mid-run, by anybody who watches it. */
	#widen(frame: Lens): void {
		if (frame.top <= this.top && frame.layers.every((layer) => this.layers.includes(layer))) return;
		const [layers, top, width] = [this.layers, this.top, this.#width];
		const [ids, probabilities] = [this.#ids, this.#probabilities];
		this.layers = [...new Set([...layers, ...frame.layers])].sort((a, b) => a - b);
		this.top = Math.max(top, frame.top);
		this.#ids = new Int32Array(this.#room * this.#width).fill(NOT_READ);
		this.#probabilities = new Float32Array(this.#room * this.#width).fill(Number.NaN);
		for (let row = 0; row < this.#room; row++) {
			layers.forEach((layer, index) => {
				const [from, to] = [
					row * width + index * top,
					row * this.#width + this.layers.indexOf(layer) * this.top,
				];
				this.#ids.set(ids.subarray(from, from + top), to);
				this.#probabilities.set(probabilities.subarray(from, from + top), to);
			});
		}
	}

	/** The guesses of one layer at one position, likeliest first, or null where the lens did not read. */
	at(position: number, layer: number): Guess[] | null {
		const row = position - this.#base;
		const index = this.layers.indexOf(layer);
		if (index < 0 || row < 0 || row >= this.#room || this.#known[row] === 0) return null;
		const from = row * this.#width + index * this.top;
		const guesses = Array.from({ length: this.top }, (_, i) => {
			const id = this.#ids[from + i]!;
			return { id, text: this.#texts.get(id) ?? "", probability: this.#probabilities[from + i]! };
		});
		// Where a run's lens was changed while it was written, there is no token where it did not read.
		const read = guesses.filter(({ id }) => id >= 0);
		return read.length === 0 ? null : read;
	}

	/** Positions that were read, ascending. */
	get positions(): number[] {
		const found: number[] = [];
		for (let row = 0; row < this.#room; row++) if (this.#known[row] === 1) found.push(this.#base + row);
		return found;
	}

	/** Ids and probabilities of all layers at a position that was read, layer by layer. */
	row(position: number): { ids: Int32Array; probabilities: Float32Array } {
		const from = (position - this.#base) * this.#width;
		const to = from + this.#width;
		return { ids: this.#ids.subarray(from, to), probabilities: this.#probabilities.subarray(from, to) };
	}

	/** Texts of the ids that were named, as far as the server told them. */
	get texts(): ReadonlyMap<number, string> {
		return this.#texts;
	}

	get #width(): number {
		return this.layers.length * this.top;
	}

	#reserve(start: number, end: number): void {
		const base = this.#room === 0 ? start : Math.min(start, this.#base);
		const before = this.#room === 0 ? 0 : this.#base - base;
		const needed = Math.max(end - base, before + this.#room);
		if (before === 0 && needed <= this.#room) return;
		const room = before === 0 ? Math.max(needed, this.#room * 2, 64) : needed;
		const known = new Uint8Array(room);
		const ids = new Int32Array(room * this.#width);
		const probabilities = new Float32Array(room * this.#width);
		known.set(this.#known, before);
		ids.set(this.#ids, before * this.#width);
		probabilities.set(this.#probabilities, before * this.#width);
		this.#base = base;
		this.#room = room;
		this.#known = known;
		this.#ids = ids;
		this.#probabilities = probabilities;
	}
}
