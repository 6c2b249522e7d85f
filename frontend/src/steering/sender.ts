// A slider can move a hundred times a second; the server needs to hear of it only so often. The first move
// goes out at once, later ones wait until the interval has passed, and the last value always goes out.
// Revisions count up from 1 per run, and each frame carries the full set.

import type { Settings } from "./setting";

export const STEER_EVERY_MS = 50;

export type Strengths = Record<string, number>;

/** All that a start or a steer frame says of steering. */
export interface Steered {
	strengths: Strengths;
	settings: Settings;
}

export interface SenderClock {
	now(): number;
	setTimeout(callback: () => void, ms: number): unknown;
	clearTimeout(id: unknown): void;
}

export class SteerSender<T> {
	#rev = 0;
	#sentAt = Number.NEGATIVE_INFINITY;
	#waiting: T | null = null;
	#timer: unknown = null;

	constructor(
		private readonly send: (rev: number, state: T) => void,
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

	change(state: T): void {
		this.#waiting = state;
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
		const state = this.#waiting;
		if (state === null) return;
		this.#waiting = null;
		this.#sentAt = this.clock.now();
		this.#rev += 1;
		this.send(this.#rev, state);
	}
}
