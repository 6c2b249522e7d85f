// How long to wait before connecting again. The wait doubles up to a ceiling, and chance takes up to half
// of it away, so that a thousand pages that lost one server do not all return in the same instant.

export const FIRST_WAIT_MS = 500;
export const LONGEST_WAIT_MS = 15_000;

/** Milliseconds before attempt `attempt` (1 is the first retry). `random` is in [0, 1). */
export function retryWait(attempt: number, random: number): number {
	const ceiling = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempt - 1));
	return Math.round(ceiling * (1 - random / 2));
}
