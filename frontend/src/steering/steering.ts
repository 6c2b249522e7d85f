// What the sliders say and what is known to be in force. A slider's value is the person's wish; `sent` means
// it travels; `in force` is said only when the server has named the position of a row that was computed
// with it or with a newer revision. Receipt is not application.
import type { RunState } from "../store/run";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import { type SenderClock, SteerSender, type Strengths } from "./sender";

export type SliderStatus =
	| { kind: "idle" }
	/** Set between runs: the next reply starts with it. */
	| { kind: "next" }
	| { kind: "sent"; rev: number }
	| { kind: "in-force"; position: number };

export type SendSteer = (run: string, rev: number, strengths: Strengths) => boolean;

export class Steering {
	readonly changed: Signal;
	#values = new Map<string, number>();
	/** Revision of the present run in which a vector last changed; 0 for its first strengths. */
	#changedIn = new Map<string, number>();
	#run: RunState | null = null;
	#sender: SteerSender | null = null;

	constructor(
		private readonly send: SendSteer,
		private readonly clock: SenderClock,
		batch: FrameBatch = pageBatch,
	) {
		this.changed = new Signal(batch);
	}

	get(id: string): number {
		return this.#values.get(id) ?? 0;
	}

	/** Only what differs from 0 travels: a vector that is not named has strength 0. */
	strengths(): Strengths {
		return Object.fromEntries([...this.#values].filter(([, value]) => value !== 0));
	}

	set(id: string, strength: number): void {
		if (!Number.isFinite(strength) || this.get(id) === strength) return;
		this.#values.set(id, strength);
		this.#announce([id]);
	}

	resetAll(): void {
		const moved = [...this.#values.keys()].filter((id) => this.get(id) !== 0);
		if (moved.length === 0) return;
		for (const id of moved) this.#values.set(id, 0);
		this.#announce(moved);
	}

	/** Forget vectors that the server does not know: a start that names one is refused. */
	keepOnly(ids: ReadonlySet<string>): void {
		for (const id of this.#values.keys()) if (!ids.has(id)) this.#values.delete(id);
		this.changed.changed();
	}

	/** A run begins with the present strengths as revision 0. */
	attach(run: RunState): void {
		this.#sender?.end();
		this.#run = run;
		this.#changedIn = new Map();
		for (const [id, value] of this.#values) if (value !== 0) this.#changedIn.set(id, 0);
		this.#sender = new SteerSender((rev, strengths) => {
			if (run.run !== null) this.send(run.run, rev, strengths);
			this.changed.changed();
		}, this.clock);
		this.changed.changed();
	}

	/** The run was admitted: what moved since `start` was sent can travel now. */
	started(run: RunState): void {
		if (run === this.#run && !sameStrengths(run.strengths, this.strengths())) {
			this.#sender?.change(this.strengths());
		}
	}

	/** The run was refused or put away: nothing of it concerns the sliders any more. */
	detach(run: RunState): void {
		if (run !== this.#run) return;
		this.#sender?.end();
		this.#run = null;
		this.#sender = null;
		this.#changedIn.clear();
		this.changed.changed();
	}

	/** The run is over: waiting changes belong to the next run. */
	ended(run: RunState): void {
		if (run === this.#run) this.#sender?.end();
		this.changed.changed();
	}

	status(id: string): SliderStatus {
		const run = this.#run;
		const rev = this.#changedIn.get(id);
		if (run === null || rev === undefined) return this.get(id) === 0 ? { kind: "idle" } : { kind: "next" };
		const inForce = firstInForce(run, rev);
		if (inForce !== null) return { kind: "in-force", position: inForce };
		return run.live ? { kind: "sent", rev } : { kind: this.get(id) === 0 ? "idle" : "next" };
	}

	#announce(ids: readonly string[]): void {
		const run = this.#run;
		if (run?.live && this.#sender !== null) {
			for (const id of ids) this.#changedIn.set(id, this.#sender.nextRev);
			// Before `started` the run has no name to steer by; `started` catches up.
			if (run.run !== null) this.#sender.change(this.strengths());
		} else {
			for (const id of ids) this.#changedIn.delete(id);
		}
		this.changed.changed();
	}
}

/** Position from which revision `rev` or a newer one is in force, or null when that is not yet known. */
function firstInForce(run: RunState, rev: number): number | null {
	if (rev === 0) return run.rows.columns > 0 || run.ids.length > 0 ? 0 : null;
	let first: number | null = null;
	for (const applied of run.applied) {
		if (applied.rev >= rev && (first === null || applied.position < first)) first = applied.position;
	}
	return first;
}

function sameStrengths(a: Readonly<Strengths>, b: Readonly<Strengths>): boolean {
	const keys = Object.keys(a);
	return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}
