// What the sliders say and what is known to be in force. A slider's value is the person's wish; `sent` means
// it travels; `in force` is said only when the server has named the position of a row that was computed
// with it or with a newer revision. Receipt is not application.
import type { RunState } from "../store/run";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import { type SenderClock, type Steered, SteerSender, type Strengths } from "./sender";
import { OWN_WAY, type Setting, type Settings, toWire } from "./setting";

export type SliderStatus =
	| { kind: "idle" }
	/** Set between runs: the next reply starts with it. */
	| { kind: "next" }
	| { kind: "sent"; rev: number }
	| { kind: "in-force"; position: number };

export type SendSteer = (run: string, rev: number, steered: Steered) => boolean;

export class Steering {
	readonly changed: Signal;
	#values = new Map<string, number>();
	#settings = new Map<string, Setting>();
	/** Revision of the present run in which a vector last changed; 0 for its first strengths. */
	#changedIn = new Map<string, number>();
	/** Revisions of the present run that carried a strength for a vector. */
	#onIn = new Map<string, Set<number>>();
	#run: RunState | null = null;
	#sender: SteerSender<Steered> | null = null;

	constructor(
		private readonly send: SendSteer,
		private readonly clock: SenderClock,
		batch: FrameBatch = pageBatch,
	) {
		this.changed = new Signal(batch);
	}

	/** The run that the sliders steer, or steered last. */
	get run(): RunState | null {
		return this.#run;
	}

	get(id: string): number {
		return this.#values.get(id) ?? 0;
	}

	setting(id: string): Setting {
		return this.#settings.get(id) ?? OWN_WAY;
	}

	/** Only what differs from 0 travels: a vector that is not named has strength 0. */
	strengths(): Strengths {
		return Object.fromEntries([...this.#values].filter(([, value]) => value !== 0));
	}

	/** Strengths, and how those vectors act that do not act in their own way. */
	steered(): Steered {
		const strengths = this.strengths();
		const settings: Settings = {};
		for (const id of Object.keys(strengths)) {
			const setting = toWire(this.setting(id));
			if (setting !== null) settings[id] = setting;
		}
		return { strengths, settings };
	}

	set(id: string, strength: number): void {
		if (!Number.isFinite(strength) || this.get(id) === strength) return;
		this.#values.set(id, strength);
		this.#announce([id]);
	}

	/** How a vector acts from now on, with a strength that fits that way. */
	act(id: string, setting: Setting, strength: number = this.get(id)): void {
		const before = JSON.stringify([this.setting(id), this.get(id)]);
		this.#settings.set(id, setting);
		this.#values.set(id, strength);
		if (before === JSON.stringify([setting, strength])) return;
		// At 0 nothing acts, however it would.
		if (strength !== 0 || this.#changedIn.has(id)) this.#announce([id]);
		else this.changed.changed();
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
		for (const id of this.#settings.keys()) if (!ids.has(id)) this.#settings.delete(id);
		this.changed.changed();
	}

	/** A run begins with the present strengths as revision 0. */
	attach(run: RunState): void {
		this.#sender?.end();
		this.#run = run;
		this.#changedIn = new Map();
		this.#onIn = new Map();
		for (const [id, value] of this.#values) if (value !== 0) this.#changedIn.set(id, 0);
		this.#noteOn(0, this.strengths());
		this.#sender = new SteerSender((rev, steered) => {
			if (run.run !== null) this.send(run.run, rev, steered);
			this.#noteOn(rev, steered.strengths);
			this.changed.changed();
		}, this.clock);
		this.changed.changed();
	}

	/** The run was admitted: what moved since `start` was sent can travel now. */
	started(run: RunState): void {
		if (run === this.#run && !same(run.steered, this.steered())) this.#sender?.change(this.steered());
	}

	/** The run was refused or put away: nothing of it concerns the sliders any more. */
	detach(run: RunState): void {
		if (run !== this.#run) return;
		this.#sender?.end();
		this.#run = null;
		this.#sender = null;
		this.#changedIn.clear();
		this.#onIn.clear();
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

	/** Whether a vector acts, or is about to, in the run that the sliders steer: not only in the next one. */
	acts(id: string): boolean {
		return this.get(id) !== 0 && this.#changedIn.has(id);
	}

	/** Whether tokens of this run were computed under a vector that was put back to 0 while it was written. */
	leftBehind(id: string): boolean {
		const run = this.#run;
		const on = this.#onIn.get(id);
		if (run === null || on === undefined || this.get(id) !== 0 || !this.#changedIn.has(id)) return false;
		if (on.has(0) && firstInForce(run, 0) !== null) return true;
		return run.rows.boundaries().some(({ rev }) => on.has(rev));
	}

	#noteOn(rev: number, strengths: Strengths): void {
		for (const id of Object.keys(strengths)) {
			const revs = this.#onIn.get(id) ?? new Set();
			this.#onIn.set(id, revs.add(rev));
		}
	}

	#announce(ids: readonly string[]): void {
		const run = this.#run;
		if (run?.live && this.#sender !== null) {
			for (const id of ids) this.#changedIn.set(id, this.#sender.nextRev);
			// Before `started` the run has no name to steer by; `started` catches up.
			if (run.run !== null) this.#sender.change(this.steered());
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

function same(a: Steered, b: Steered): boolean {
	const sorted = ({ strengths, settings }: Steered) =>
		JSON.stringify(
			[strengths, settings].map((each) => Object.entries(each).sort(([x], [y]) => (x < y ? -1 : 1))),
		);
	return sorted(a) === sorted(b);
}
