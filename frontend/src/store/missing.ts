// Positions whose rows are not here and can be had, such as those that were skipped for a slow reader. A position
// leaves when its row has come, or when it turns out that nobody has it.
//
// One byte per position: a long reply may miss every second row, and each of these takes the time of the
// positions that it is about, not of all that are missing.

export interface Stretch {
	start: number;
	count: number;
}

export class Missing {
	/** 1 where a position is missing. */
	#at = new Uint8Array(0);
	#count = 0;
	/** No position before this one is missing. */
	#low = 0;

	get none(): boolean {
		return this.#count === 0;
	}

	/** How many positions are missing. */
	get count(): number {
		return this.#count;
	}

	has(position: number): boolean {
		return this.#at[position] === 1;
	}

	add(start: number, count: number): void {
		const end = start + count;
		if (end > this.#at.length) {
			const grown = new Uint8Array(Math.max(end, 2 * this.#at.length));
			grown.set(this.#at);
			this.#at = grown;
		}
		for (let position = start; position < end; position++) {
			if (this.#at[position] === 0) this.#count += 1;
			this.#at[position] = 1;
		}
		this.#low = Math.min(this.#low, start);
	}

	remove(start: number, count: number): void {
		const end = Math.min(start + count, this.#at.length);
		for (let position = start; position < end; position++) {
			if (this.#at[position] === 1) this.#count -= 1;
			this.#at[position] = 0;
		}
	}

	clear(): void {
		this.#at = new Uint8Array(0);
		this.#count = 0;
		this.#low = 0;
	}

	/** The first stretch, cut to `most` positions. */
	first(most: number): Stretch | null {
		if (this.none) return null;
		while (this.#at[this.#low] === 0) this.#low += 1;
		const start = this.#low;
		let end = start;
		while (end < start + most && this.#at[end] === 1) end++;
		return { start, count: end - start };
	}

	/** What is missing of a stretch, in order. */
	*within({ start, count }: Stretch): Generator<Stretch> {
		const end = Math.min(start + count, this.#at.length);
		for (let from = start; from < end; from++) {
			let to = from;
			while (to < end && this.#at[to] === 1) to++;
			if (to > from) yield { start: from, count: to - from };
			from = to;
		}
	}

	/** Whether any position of a stretch is still missing. */
	any({ start, count }: Stretch): boolean {
		return this.#at.subarray(start, start + count).includes(1);
	}
}
