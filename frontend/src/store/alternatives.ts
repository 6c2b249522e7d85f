// The likeliest tokens of the final distribution, of one run: at a position those that could have stood at the next one,
// likeliest first, with their log probabilities in nats. They come from the last prompt token on, where a run is watched
// with them.
import type { Alternatives } from "../protocol/types.gen";

export interface Alternative {
	id: number;
	/** "" for a token that the server has not told the text of. */
	text: string;
	logprob: number;
}

interface Named {
	ids: Int32Array;
	logprobs: Float32Array;
}

export class AlternativeStore {
	#at = new Map<number, Named>();
	#texts = new Map<number, string>();

	/** Take one frame. Throws a sentence when its shape contradicts its bytes. */
	append({ start, count, top, ids, logprobs, new_ids, new_texts }: Alternatives): void {
		const wanted = 4 * count * top;
		if (ids.byteLength !== wanted || logprobs.byteLength !== wanted) {
			throw new Error(
				`Alternatives of ${count} positions hold ${ids.byteLength / 4} tokens and ` +
					`${logprobs.byteLength / 4} log probabilities, not ${count * top}.`,
			);
		}
		new_ids.forEach((id, index) => {
			this.#texts.set(id, new_texts[index] ?? "");
		});
		for (let i = 0; i < count; i++) {
			const [from, to] = [4 * i * top, 4 * (i + 1) * top];
			// Copied: a frame's bytes may start anywhere, and belong to all that came with it.
			this.#at.set(start + i, {
				ids: new Int32Array(ids.slice(from, to).buffer),
				logprobs: new Float32Array(logprobs.slice(from, to).buffer),
			});
		}
	}

	/** What could have stood behind a position, likeliest first; null where nobody asked. */
	at(position: number): Alternative[] | null {
		const named = this.#at.get(position);
		if (named === undefined) return null;
		return [...named.ids].flatMap((id, index) =>
			// Fewer were named than a frame has room for.
			id < 0 ? [] : [{ id, text: this.#texts.get(id) ?? "", logprob: named.logprobs[index]! }],
		);
	}

	/** Positions that have any, ascending. */
	get positions(): number[] {
		return [...this.#at.keys()].sort((one, other) => one - other);
	}

	/** As they were sent, likeliest first. */
	row(position: number): Named | null {
		return this.#at.get(position) ?? null;
	}

	/** The most tokens that were named at a position. */
	get top(): number {
		let top = 0;
		for (const { ids } of this.#at.values()) top = Math.max(top, ids.length);
		return top;
	}

	/** Texts of the ids that were named, as far as the server told them. */
	get texts(): ReadonlyMap<number, string> {
		return this.#texts;
	}
}
