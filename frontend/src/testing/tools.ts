// What a test needs to own: time, chance, the moment at which listeners hear of a change, and a run. Used by tests
// only.
import type { Clock } from "../connection/clock";
import { Run, type RunOptions } from "../store/run";
import { FrameBatch } from "../store/signal";

/** A batch whose frames come when `flush` is called. */
export function manualBatch(): FrameBatch {
	return new FrameBatch(() => {});
}

/** Time that passes when told. */
export class TestClock implements Clock {
	time = 0;
	chance = 0;
	#timers = new Map<number, { at: number; callback: () => void }>();
	#next = 1;
	now = () => this.time;
	random = () => this.chance;
	setTimeout(callback: () => void, ms: number) {
		this.#timers.set(this.#next, { at: this.time + ms, callback });
		return this.#next++;
	}
	clearTimeout(id: unknown) {
		this.#timers.delete(id as number);
	}
	advance(ms: number) {
		const end = this.time + ms;
		for (;;) {
			const due = [...this.#timers]
				.filter(([, timer]) => timer.at <= end)
				.sort((a, b) => a[1].at - b[1].at)[0];
			if (due === undefined) break;
			this.#timers.delete(due[0]);
			this.time = due[1].at;
			due[1].callback();
		}
		this.time = end;
	}
	/** Time passes and no timer fires; those that came due fire at the end, once. */
	sleep(ms: number) {
		this.time += ms;
		const due = [...this.#timers].filter(([, timer]) => timer.at <= this.time);
		for (const [id, timer] of due) if (this.#timers.delete(id)) timer.callback();
	}
}

/** A small linear congruential generator: the same "chance" in every run of a test. */
export function chance(seed: number): () => number {
	let state = seed >>> 0;
	return () => {
		state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
		return state / 2 ** 32;
	};
}

/** A run that tells nobody before `manualBatch` is flushed. `special` are ids of tokens that are no text. */
export function testRun(options: Partial<RunOptions> & { id?: string; special?: number[] } = {}): Run {
	const { id = "c1", special = [], ...rest } = options;
	const run = new Run(id, { sentAt: 0, batch: manualBatch(), ...rest });
	run.tokens.specialIds = new Set(special);
	return run;
}
