// Rows that the server skipped because this page read too slowly, and that it still has. They are asked for when the
// run is over or no more have been skipped for a moment, one request at a time for each run. What is asked for in
// vain stays a hole, which the map shows as one.
import type { TimerGroup } from "../connection/clock";
import type { ClientFrame } from "../protocol/types.gen";
import type { Stretch } from "../store/missing";
import type { Run, RunFrame } from "../store/run";

/** Rows that one frame may ask for. */
export const MOST_ROWS = 4096;
/** No rows are asked for in a live run that skipped some within so long: it would skip more. */
export const CALM_MS = 2_000;
/** Longer than the server takes to answer, unless it will not. */
export const ANSWER_MS = 10_000;
/** How long to wait after asking too much. */
export const AGAIN_MS = 1_000;
const MOST_TRIES = 3;

interface Asked extends Stretch {
	tries: number;
	timer: unknown;
}

export class SkippedRows {
	#asked = new Map<Run, Asked>();
	/** Timers of live runs that may become calm. */
	#calming = new Map<Run, unknown>();

	/** Whoever stops all of `timers` calls `clear` too. */
	constructor(
		private readonly send: (frame: ClientFrame) => boolean,
		private readonly timers: TimerGroup,
	) {}

	/** A frame of a run came, and the run has taken it. */
	took(run: Run, frame: RunFrame): void {
		if (frame.type === "rows" || frame.type === "gap") this.#answered(run);
		if (frame.type === "gap" && frame.kept) this.#calmDown(run);
		if (run.delivery.complete) this.#ask(run);
	}

	/** The server refused something about a run as too much at once. */
	later(run: Run): void {
		const asked = this.#asked.get(run);
		if (asked === undefined) return;
		this.timers.after(AGAIN_MS, () => {
			if (this.#asked.get(run) === asked) this.#askAgain(run, asked);
		});
	}

	/** Nothing more is wanted of a run. */
	forget(run: Run): void {
		this.#forgetAsked(run);
		this.timers.stop(this.#calming.get(run));
		this.#calming.delete(run);
	}

	/** An answer to what was asked cannot come any more. */
	refuse(run: Run): void {
		this.#forgetAsked(run);
		run.delivery.missing.clear();
	}

	clear(): void {
		this.#asked.clear();
		this.#calming.clear();
	}

	#calmDown(run: Run): void {
		if (run.delivery.complete) return;
		this.timers.stop(this.#calming.get(run));
		this.#calming.set(
			run,
			this.timers.after(CALM_MS, () => {
				this.#calming.delete(run);
				this.#ask(run);
			}),
		);
	}

	/** Ask for the first rows that are missing, unless an answer is owed or the run must calm down. */
	#ask(run: Run): void {
		if (this.#asked.has(run) || (this.#calming.has(run) && !run.delivery.complete)) return;
		const stretch = run.delivery.missing.first(MOST_ROWS);
		if (stretch !== null && !run.delivery.away) this.#askFor(run, stretch, 1);
	}

	#askFor(run: Run, { start, count }: Stretch, tries: number): void {
		const { name } = run;
		if (name === null || !this.send({ type: "rows", run: name, start, count })) return;
		const asked: Asked = { start, count, tries, timer: null };
		asked.timer = this.timers.after(ANSWER_MS, () => this.#askAgain(run, asked));
		this.#asked.set(run, asked);
	}

	#askAgain(run: Run, asked: Asked): void {
		this.#forgetAsked(run);
		if (asked.tries < MOST_TRIES) {
			this.#askFor(run, asked, asked.tries + 1);
			return;
		}
		run.delivery.missing.remove(asked.start, asked.count);
		this.#ask(run);
	}

	#answered(run: Run): void {
		const asked = this.#asked.get(run);
		if (asked === undefined || run.delivery.missing.any(asked)) return;
		this.#forgetAsked(run);
		this.#ask(run);
	}

	#forgetAsked(run: Run): void {
		this.timers.stop(this.#asked.get(run)?.timer);
		this.#asked.delete(run);
	}
}
