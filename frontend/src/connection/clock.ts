// Time and chance as the page uses them, in one interface, so that tests own both.

export interface Clock {
	/** Milliseconds, never backwards. */
	now(): number;
	/** In [0, 1). */
	random(): number;
	setTimeout(callback: () => void, ms: number): unknown;
	clearTimeout(id: unknown): void;
}

/** The part of a clock that waiting needs. */
export type Timers = Omit<Clock, "random">;

export const browserClock: Clock = {
	now: () => performance.now(),
	random: () => Math.random(),
	setTimeout: (callback, ms) => setTimeout(callback, ms),
	clearTimeout: (id) => clearTimeout(id as ReturnType<typeof setTimeout>),
};

/** Timers that belong together, so that all of them can be stopped at once. */
export class TimerGroup {
	#waiting = new Set<unknown>();

	constructor(private readonly timers: Pick<Timers, "setTimeout" | "clearTimeout">) {}

	/** Returns the timer, for `stop`. */
	after(ms: number, action: () => void): unknown {
		const timer = this.timers.setTimeout(() => {
			this.#waiting.delete(timer);
			action();
		}, ms);
		this.#waiting.add(timer);
		return timer;
	}

	stop(timer: unknown): void {
		if (this.#waiting.delete(timer)) this.timers.clearTimeout(timer);
	}

	stopAll(): void {
		for (const timer of this.#waiting) this.timers.clearTimeout(timer);
		this.#waiting.clear();
	}
}
