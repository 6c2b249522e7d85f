// A slider can move a hundred times a second; the server needs to hear of it only so often. The first move
// goes out at once, later ones wait until the interval has passed, and the last value always goes out.
// Revisions count up from 1 per run, and each frame carries the full set.

export const STEER_EVERY_MS = 50;

export type Strengths = Record<string, number>;

export interface SenderClock {
	now(): number;
	setTimeout(callback: () => void, ms: number): unknown;
	clearTimeout(id: unknown): void;
}

export class SteerSender {
	#rev = 0;
	#sentAt = Number.NEGATIVE_INFINITY;
	#waiting: Strengths | null = null;
	#timer: unknown = null;

	constructor(
		private readonly send: (rev: number, strengths: Strengths) => void,
		private readonly clock: SenderClock,
	) {}

	/** Revision of the last frame sent; 0 means only the run's first strengths. */
	get rev(): number {
		return this.#rev;
	}

	/** The revision that will carry a change made now. */
	get nextRev(): number {
		return this.#rev + 1;
	}

	change(strengths: Strengths): void {
		this.#waiting = strengths;
		if (this.#timer !== null) return;
		const wait = this.#sentAt + STEER_EVERY_MS - this.clock.now();
		if (wait <= 0) this.#flush();
		else this.#timer = this.clock.setTimeout(() => this.#flush(), wait);
	}

	/** The run is over: nothing waits any more. */
	end(): void {
		if (this.#timer !== null) this.clock.clearTimeout(this.#timer);
		this.#timer = null;
		this.#waiting = null;
	}

	#flush(): void {
		this.#timer = null;
		const strengths = this.#waiting;
		if (strengths === null) return;
		this.#waiting = null;
		this.#sentAt = this.clock.now();
		this.#rev += 1;
		this.send(this.#rev, strengths);
	}
}
