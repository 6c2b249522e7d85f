// Positions whose rows were skipped for a slow reader and can be asked for again. A position leaves when its
// row has come, or when it turns out that nobody has it.

export interface Stretch {
	start: number;
	count: number;
}

export class Missing {
	/** Apart and in order. */
	#parts: { start: number; end: number }[] = [];

	get none(): boolean {
		return this.#parts.length === 0;
	}

	add(start: number, count: number): void {
		let [from, to] = [start, start + count];
		const apart = this.#parts.filter((part) => part.end < from || part.start > to);
		for (const part of this.#parts) {
			if (apart.includes(part)) continue;
			from = Math.min(from, part.start);
			to = Math.max(to, part.end);
		}
		this.#parts = [...apart, { start: from, end: to }].sort((a, b) => a.start - b.start);
	}

	remove(start: number, count: number): void {
		const end = start + count;
		this.#parts = this.#parts
			.flatMap((part) => [
				{ start: part.start, end: Math.min(part.end, start) },
				{ start: Math.max(part.start, end), end: part.end },
			])
			.filter((part) => part.start < part.end);
	}

	clear(): void {
		this.#parts = [];
	}

	/** The first stretch, cut to `most` positions. */
	first(most: number): Stretch | null {
		const part = this.#parts[0];
		return part === undefined ? null : { start: part.start, count: Math.min(most, part.end - part.start) };
	}

	/** Whether any position of a stretch is still missing. */
	any({ start, count }: Stretch): boolean {
		return this.#parts.some((part) => part.start < start + count && part.end > start);
	}
}
