// Which runs are heard of, by the server's names, and how a lost line or a reload is made good: live runs are
// resumed after the newest event that was had; of kept replies those whose numbers are not here are fetched, the
// newest first and one at a time. Whatever is asked for in vain ends in a sentence at the run.
import { TimerGroup, type Timers } from "../connection/clock";
import type { ClientFrame, ErrorCode } from "../protocol/types.gen";
import type { Run, RunFrame } from "../store/run";
import { AGAIN_MS, SkippedRows } from "./skipped";

const KEPT = "What had arrived is kept.";
export const OTHER_EPOCH = `The server was restarted, so this reply did not come to its end. ${KEPT}`;
export const UNKNOWN = `The server no longer has this reply, so its end cannot be fetched. ${KEPT}`;
export const NEVER_KNOWN = "The server has no such reply, or keeps it no longer.";
export const NO_MAP = "The server no longer has the numbers of this reply, so there is no map of it.";

export class Delivery {
	/** By the server's name, only of the present epoch once there is one. */
	#runs = new Map<string, Run>();
	/** Runs for which `resume` was sent and not answered. */
	#resuming = new Set<Run>();
	/** Over, and not complete here: newest first. */
	#toFetch: Run[] = [];
	#fetching: Run | null = null;
	readonly #timers: TimerGroup;
	readonly #skipped: SkippedRows;

	constructor(
		private readonly send: (frame: ClientFrame) => boolean,
		timers: Timers,
	) {
		this.#timers = new TimerGroup(timers);
		this.#skipped = new SkippedRows(send, this.#timers);
	}

	find(name: string): Run | undefined {
		return this.#runs.get(name);
	}

	/** Hear of a run from now on; it must have its name. */
	follow(run: Run): void {
		this.#runs.set(run.name!, run);
	}

	/** Hear no more of any run but these. */
	keepOnly(runs: ReadonlySet<Run>): void {
		for (const run of [...this.#runs.values()]) if (!runs.has(run)) this.forget(run);
	}

	/** Hear no more of a run. */
	forget(run: Run): void {
		if (run.name !== null) this.#runs.delete(run.name);
		this.#resuming.delete(run);
		this.#skipped.forget(run);
		this.#toFetch = this.#toFetch.filter((one) => one !== run);
		if (this.#fetching === run) this.#fetchNext();
	}

	/** Hear no more of any run. */
	clear(): void {
		this.#oweNothing();
		this.#runs.clear();
	}

	/** The line is down. */
	lost(): void {
		this.#oweNothing();
		for (const run of this.#runs.values()) run.leave();
	}

	/** A line is up, to this life of the server. */
	back(epoch: string): void {
		this.#oweNothing();
		for (const [name, run] of [...this.#runs].reverse()) {
			run.delivery.epoch ??= epoch;
			if (run.delivery.epoch !== epoch) {
				this.#runs.delete(name);
				this.#without(run, OTHER_EPOCH);
			} else if (run.delivery.live) {
				this.resume(run);
			} else if (!run.delivery.complete || !run.delivery.missing.none) {
				this.#toFetch.push(run);
			}
		}
		this.#fetchNext();
	}

	/** Ask how a run stands and for all that came after what was had; no more than once at a time. */
	resume(run: Run): void {
		const { name } = run;
		const { epoch } = run.delivery;
		if (name === null || epoch === null || this.#resuming.has(run)) return;
		if (this.send({ type: "resume", run: name, epoch, after: run.delivery.seq })) this.#resuming.add(run);
	}

	/** A frame of a followed run came, and the run has taken it. */
	took(run: Run, frame: RunFrame): void {
		if (frame.type === "resumed") {
			this.#resuming.delete(run);
			if (run.delivery.stopAsked && run.delivery.live) this.send({ type: "stop", run: frame.run });
		}
		this.#skipped.took(run, frame);
		if (run.delivery.complete && this.#fetching === run && !this.#resuming.has(run)) this.#fetchNext();
	}

	/** The server refused something about a run as too much at once. */
	later(run: Run): void {
		if (this.#resuming.delete(run)) this.#timers.after(AGAIN_MS, () => this.resume(run));
		else this.#skipped.later(run);
	}

	/** The server does not know a run, or does not have what was asked of it. */
	unavailable(run: Run, code: ErrorCode): void {
		this.#resuming.delete(run);
		this.#skipped.refuse(run);
		if (code === "unknown_run" || code === "other_epoch") {
			this.#runs.delete(run.name!);
			const never = run.tokens.length === 0 && run.delivery.remembered === null;
			this.#without(run, code === "other_epoch" ? OTHER_EPOCH : never ? NEVER_KNOWN : UNKNOWN);
		}
		if (this.#fetching === run) this.#fetchNext();
	}

	#without(run: Run, message: string): void {
		if (run.delivery.live) run.lose(message);
		else if (!run.delivery.complete) run.giveUp(NO_MAP);
	}

	#fetchNext(): void {
		this.#fetching = this.#toFetch.shift() ?? null;
		if (this.#fetching !== null) this.resume(this.#fetching);
	}

	/** The line is gone, or new: no answer to anything is to come. */
	#oweNothing(): void {
		this.#timers.stopAll();
		this.#skipped.clear();
		this.#resuming.clear();
		this.#toFetch = [];
		this.#fetching = null;
	}
}
