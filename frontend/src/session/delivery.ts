// Brings back what a lost line, a reload or slow reading left out, by the server's names of the runs. After a
// line that came back live runs are resumed from the newest event that was had; of kept replies those whose
// numbers are not here are fetched, the newest first and one at a time. Rows that were skipped are asked for
// when the run is over or no more have been skipped for a moment, one request at a time for each run.
//
// Whatever is asked for in vain ends in a sentence at the run, or in a hole that the map shows as a hole.
import type { ClientFrame, ErrorCode } from "../protocol/types.gen";
import type { SenderClock } from "../steering/sender";
import type { Stretch } from "../store/missing";
import type { RunFrame, RunState } from "../store/run";

/** Rows that one frame may ask for. */
export const MOST_ROWS = 4096;
/** No rows are asked for in a live run that skipped some within so long: it would skip more. */
export const CALM_MS = 2_000;
/** Longer than the server takes to answer, unless it will not. */
export const ANSWER_MS = 10_000;
/** How long to wait after asking too much. */
export const AGAIN_MS = 1_000;
const MOST_TRIES = 3;

const KEPT = "What had arrived is kept.";
export const OTHER_EPOCH = `The server was restarted, so this reply did not come to its end. ${KEPT}`;
export const UNKNOWN = `The server no longer has this reply, so its end cannot be fetched. ${KEPT}`;
export const NEVER_KNOWN = "The server has no such reply, or keeps it no longer.";
export const NO_MAP = "The server no longer has the numbers of this reply, so there is no map of it.";

interface Asked extends Stretch {
	tries: number;
	timer: unknown;
}

export class Delivery {
	/** By the server's name, only of the present epoch once there is one. */
	#runs = new Map<string, RunState>();
	/** Runs for which `resume` was sent and not answered. */
	#resuming = new Set<RunState>();
	/** Over, and not complete here: newest first. */
	#toFetch: RunState[] = [];
	#fetching: RunState | null = null;
	#asked = new Map<RunState, Asked>();
	/** Timers of live runs that may become calm. */
	#calming = new Map<RunState, unknown>();
	#timers = new Set<unknown>();

	constructor(
		private readonly send: (frame: ClientFrame) => boolean,
		private readonly clock: SenderClock,
	) {}

	find(name: string): RunState | undefined {
		return this.#runs.get(name);
	}

	/** Hear of a run from now on; it must have its name. */
	follow(run: RunState): void {
		this.#runs.set(run.run!, run);
	}

	/** Hear no more of any run but these. */
	keepOnly(runs: ReadonlySet<RunState>): void {
		for (const [name, run] of this.#runs) {
			if (runs.has(run)) continue;
			this.#runs.delete(name);
			this.#resuming.delete(run);
			this.#forgetAsked(run);
			this.#stop(this.#calming.get(run));
			this.#calming.delete(run);
			this.#toFetch = this.#toFetch.filter((one) => one !== run);
			if (this.#fetching === run) this.#fetchNext();
		}
	}

	/** Hear no more of any run. */
	clear(): void {
		this.#still();
		this.#runs.clear();
	}

	/** The line is down. */
	lost(): void {
		this.#still();
		for (const run of this.#runs.values()) run.leave();
	}

	/** A line is up, to this life of the server. */
	back(epoch: string): void {
		this.#still();
		for (const [name, run] of [...this.#runs].reverse()) {
			run.epoch ??= epoch;
			if (run.epoch !== epoch) {
				this.#runs.delete(name);
				this.#without(run, OTHER_EPOCH);
			} else if (run.live) {
				this.resume(run);
			} else if (!run.complete || !run.missing.none) {
				this.#toFetch.push(run);
			}
		}
		this.#fetchNext();
	}

	/** Ask how a run stands and for all that came after what was had; no more than once at a time. */
	resume(run: RunState): void {
		const { run: name, epoch } = run;
		if (name === null || epoch === null || this.#resuming.has(run)) return;
		if (this.send({ type: "resume", run: name, epoch, after: run.seq })) this.#resuming.add(run);
	}

	/** A frame of a followed run; the run has taken it. */
	took(run: RunState, frame: RunFrame): void {
		if (frame.type === "resumed") {
			this.#resuming.delete(run);
			if (run.stopAsked && run.live) this.send({ type: "stop", run: frame.run });
		}
		if (frame.type === "rows" || frame.type === "gap") this.#answered(run);
		if (frame.type === "gap" && frame.kept) this.#calmDown(run);
		if (run.complete) {
			this.#ask(run);
			if (this.#fetching === run && !this.#resuming.has(run)) this.#fetchNext();
		}
	}

	/** The server refused something about a run for now. */
	later(run: RunState): void {
		const resuming = this.#resuming.delete(run);
		const asked = this.#asked.get(run);
		if (!resuming && asked === undefined) return;
		this.#after(AGAIN_MS, () => {
			if (resuming) this.resume(run);
			else if (asked !== undefined && this.#asked.get(run) === asked) this.#askAgain(run, asked);
		});
	}

	/** The server does not know a run, or does not have what was asked of it. */
	unavailable(run: RunState, code: ErrorCode): void {
		this.#resuming.delete(run);
		this.#forgetAsked(run);
		run.missing.clear();
		if (code === "unknown_run" || code === "other_epoch") {
			this.#runs.delete(run.run!);
			const never = run.length === 0 && run.remembered === null;
			this.#without(run, code === "other_epoch" ? OTHER_EPOCH : never ? NEVER_KNOWN : UNKNOWN);
		}
		if (this.#fetching === run) this.#fetchNext();
	}

	#without(run: RunState, message: string): void {
		if (run.live) run.lose(message);
		else if (!run.complete) run.giveUp(NO_MAP);
	}

	#fetchNext(): void {
		this.#fetching = this.#toFetch.shift() ?? null;
		if (this.#fetching !== null) this.resume(this.#fetching);
	}

	#calmDown(run: RunState): void {
		if (run.complete) return;
		this.#stop(this.#calming.get(run));
		this.#calming.set(
			run,
			this.#after(CALM_MS, () => {
				this.#calming.delete(run);
				this.#ask(run);
			}),
		);
	}

	/** Ask for the first rows that are missing, unless an answer is owed or the run must calm down. */
	#ask(run: RunState): void {
		if (this.#asked.has(run) || (this.#calming.has(run) && !run.complete)) return;
		const stretch = run.missing.first(MOST_ROWS);
		if (stretch !== null && run.run !== null && !run.away) this.#askFor(run, stretch, 1);
	}

	#askFor(run: RunState, { start, count }: Stretch, tries: number): void {
		if (!this.send({ type: "rows", run: run.run!, start, count })) return;
		const asked: Asked = { start, count, tries, timer: null };
		asked.timer = this.#after(ANSWER_MS, () => this.#askAgain(run, asked));
		this.#asked.set(run, asked);
	}

	#askAgain(run: RunState, asked: Asked): void {
		this.#forgetAsked(run);
		if (asked.tries < MOST_TRIES) {
			this.#askFor(run, asked, asked.tries + 1);
			return;
		}
		run.missing.remove(asked.start, asked.count);
		this.#ask(run);
	}

	#answered(run: RunState): void {
		const asked = this.#asked.get(run);
		if (asked === undefined || run.missing.any(asked)) return;
		this.#forgetAsked(run);
		this.#ask(run);
	}

	#forgetAsked(run: RunState): void {
		this.#stop(this.#asked.get(run)?.timer);
		this.#asked.delete(run);
	}

	/** Nothing is owed any more: the line is gone, or new. */
	#still(): void {
		for (const timer of this.#timers) this.clock.clearTimeout(timer);
		this.#timers.clear();
		this.#resuming.clear();
		this.#asked.clear();
		this.#calming.clear();
		this.#toFetch = [];
		this.#fetching = null;
	}

	#after(ms: number, action: () => void): unknown {
		const timer = this.clock.setTimeout(() => {
			this.#timers.delete(timer);
			action();
		}, ms);
		this.#timers.add(timer);
		return timer;
	}

	#stop(timer: unknown): void {
		if (timer === undefined) return;
		this.clock.clearTimeout(timer);
		this.#timers.delete(timer);
	}
}
