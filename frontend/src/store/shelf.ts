// Whose numbers leave the page's memory when those of all runs together are too many: they go to the shelf, a store on
// disk, and come back when they are wanted. Only the choice is made here; `shelving.ts` carries it out.

/** Bytes of numbers that all runs of a page may hold: four runs of 80 layers, 8,192 positions and 20 metrics. */
export const BUDGET = 128 * 2 ** 20;

export interface Holding<T> {
	of: T;
	/** Bytes of numbers in memory. */
	bytes: number;
	/** When it was wanted last, of any clock that only grows. */
	used: number;
	/** It is shown or written or wanted otherwise: its numbers cannot leave. */
	stays: boolean;
}

/** Those that must leave so that the rest fits into the budget, the longest unused first. */
export function leaving<T>(all: readonly Holding<T>[], budget: number): T[] {
	let held = all.reduce((sum, { bytes }) => sum + bytes, 0);
	const found: T[] = [];
	for (const one of all.filter(({ stays }) => !stays).sort((a, b) => a.used - b.used)) {
		if (held <= budget) break;
		found.push(one.of);
		held -= one.bytes;
	}
	return found;
}
