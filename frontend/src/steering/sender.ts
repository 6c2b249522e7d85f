// A slider can move a hundred times a second; the server needs to hear of it only so often. The first move
// goes out at once, later ones wait until the interval has passed, and the last value always goes out.
// Revisions count up per run, whoever else steers it, and each frame carries the full set. While nothing can
// be sent the last value waits.

import type { Timers } from "../connection/clock";

export const STEER_EVERY_MS = 50;

export class SteerSender<T> {
	#rev = 0;
	#sentAt = Number.NEGATIVE_INFINITY;
	#waiting: T | null = null;
	#timer: unknown = null;
	#held = false;

	/** `send` says whether the frame could be handed over; one that could not waits for `release`. */
	constructor(
		private readonly send: (rev: number, state: T) => boolean,
		private readonly clock: Timers,
	) {}

	/** The newest revision that is known, sent from here or by somebody else; 0 is the run's first strengths. */
	get rev(): number {
		return this.#rev;
	}

	/** The revision that will carry a change made now. */
	get nextRev(): number {
		return this.#rev + 1;
	}

	/** Nothing can be sent now. */
	get held(): boolean {
		return this.#held;
	}

	change(state: T): void {
		this.#waiting = state;
		this.#plan();
	}

	/** Revisions up to this one are taken. */
	atLeast(rev: number): void {
		this.#rev = Math.max(this.#rev, rev);
	}

	hold(): void {
		this.#held = true;
		this.#unplan();
	}

	release(): void {
		this.#held = false;
		if (this.#waiting !== null) this.#plan();
	}

	/** The run is over: nothing waits any more. */
	end(): void {
		this.#unplan();
		this.#waiting = null;
	}

	#plan(): void {
		if (this.#timer !== null || this.#held) return;
		const wait = this.#sentAt + STEER_EVERY_MS - this.clock.now();
		if (wait <= 0) this.#flush();
		else this.#timer = this.clock.setTimeout(() => this.#flush(), wait);
	}

	#unplan(): void {
		if (this.#timer !== null) this.clock.clearTimeout(this.#timer);
		this.#timer = null;
	}

	#flush(): void {
		this.#timer = null;
		const state = this.#waiting;
		if (state === null) return;
		if (!this.send(this.#rev + 1, state)) {
			this.#held = true;
			return;
		}
		this.#waiting = null;
		this.#sentAt = this.clock.now();
		this.#rev += 1;
	}
}
