// How a run stands to this page: whether it is live, how much of it has come, and what is still to be had. It stands
// beside the run and is no part of what its numbers mean: the same run in another tab, after a reload or out of a
// recording is delivered otherwise.
//
// A run outlives its connection: while the line is down it is `away` and still live, and `seq` says from where on its
// events are wanted. After a reload its text is `remembered` until its tokens have come again.
import { Missing } from "./missing";
import { isLive, NEXT_RUN_PHASE, type RunEvent, type RunPhase } from "./phase";
import { type Marks, type Parted, parted } from "./thought";

export class Delivered {
	/** The life of the server in which the run's name means it. */
	epoch: string | null = null;
	/** Cursor in the run's events: every event up to this one has been had. */
	seq = 0;
	/** Its last event has come: nothing but skipped rows can follow. */
	complete = false;
	/** Place in the queue, 1 for the next to begin; null when it does not wait. */
	queued: number | null = null;
	/** The person wants its end; said again when the line is back. */
	stopAsked = false;
	/** Rows that were skipped and can be had. */
	readonly missing = new Missing();
	/** The reply's text from before a reload, until its tokens have come again. */
	remembered: string | null = null;
	/** What stands around the thought in that text; null where there is none. */
	rememberedMarks: Marks | null = null;
	/** Why the numbers of a remembered reply cannot be had, as a sentence. */
	gone: string | null = null;
	#phase: RunPhase;

	constructor(phase: RunPhase) {
		this.#phase = phase;
	}

	get phase(): RunPhase {
		return this.#phase;
	}

	get live(): boolean {
		return isLive(this.#phase);
	}

	/** Live, and out of reach. */
	get away(): boolean {
		return this.#phase === "away";
	}

	/** It is being written, or being fetched: most of its rows may be to come. */
	get awaited(): boolean {
		return this.live || (this.#phase === "done" && !this.complete && this.gone === null);
	}

	/** Thought and answer of the remembered text. */
	get rememberedParts(): Parted | null {
		return this.remembered === null ? null : parted(this.remembered, this.rememberedMarks);
	}

	/** Whether the event moved the run into another phase. */
	on(event: RunEvent): boolean {
		const next = NEXT_RUN_PHASE[this.#phase][event];
		if (next === undefined) return false;
		this.#phase = next;
		return true;
	}

	/** Its last event has come. */
	end(): void {
		this.complete = true;
		this.remembered = null;
		this.queued = null;
	}
}
