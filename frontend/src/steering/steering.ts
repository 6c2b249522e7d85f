// What the sliders say and what is known to be in force. A slider's value is the person's wish; `sent` means
// it travels; `in force` is said only when the server has named the position of a row that was computed
// with it or with a newer revision. Receipt is not application.
//
// The run may be steered from elsewhere too, another tab say, and its line may be down for a while. When the
// server says how it stands, sliders that were moved here meanwhile keep their value and travel; the others
// take the run's.
import type { Limits } from "../protocol/types.gen";
import type { RunState } from "../store/run";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import { type SenderClock, type Steered, SteerSender, type Strengths } from "./sender";
import { fromWire, OWN_WAY, type Setting, type Settings, toWire } from "./setting";

/** How long to wait before saying again what the server refused as too much at once. */
export const AGAIN_MS = 1_000;

export type SliderStatus =
	| { kind: "idle" }
	/** Set between runs: the next reply starts with it. */
	| { kind: "next" }
	/** Moved while the line is down. */
	| { kind: "held" }
	| { kind: "sent"; rev: number }
	| { kind: "in-force"; position: number };

export type SendSteer = (run: string, rev: number, steered: Steered) => boolean;

export class Steering {
	readonly changed: Signal;
	/** What the server takes. */
	limits: Pick<Limits, "max_vectors" | "max_strength"> = {
		max_vectors: Number.POSITIVE_INFINITY,
		max_strength: Number.POSITIVE_INFINITY,
	};
	/** Why the last slider that was moved stayed where it was, as a sentence, or null. */
	problem: string | null = null;
	#values = new Map<string, number>();
	#settings = new Map<string, Setting>();
	/** Revision of the present run in which a vector last changed; 0 for its first strengths. */
	#changedIn = new Map<string, number>();
	/** Revisions of the present run that carried a strength for a vector. */
	#onIn = new Map<string, Set<number>>();
	/** Vectors that were changed and not sent since. */
	#pending = new Set<string>();
	#again: unknown = null;
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

	/** False where the server would refuse it; `problem` then says why. */
	set(id: string, strength: number): boolean {
		return this.act(id, this.setting(id), strength);
	}

	/** How a vector acts from now on, with a strength that fits that way. False as with `set`. */
	act(id: string, setting: Setting, wanted: number = this.get(id)): boolean {
		if (!Number.isFinite(wanted)) return false;
		const { max_vectors, max_strength } = this.limits;
		if (wanted !== 0 && this.get(id) === 0 && Object.keys(this.strengths()).length >= max_vectors) {
			const vectors = max_vectors === 1 ? "1 vector" : `${max_vectors} vectors`;
			this.problem = `This server steers with at most ${vectors} at once. Set another slider back to 0 first.`;
			this.changed.changed();
			return false;
		}
		const strength = Math.max(-max_strength, Math.min(max_strength, wanted));
		const before = JSON.stringify([this.setting(id), this.get(id)]);
		this.problem = null;
		this.#settings.set(id, setting);
		this.#values.set(id, strength);
		if (before === JSON.stringify([setting, strength])) return true;
		// At 0 nothing acts, however it would.
		if (strength !== 0 || this.#changedIn.has(id)) this.#announce([id]);
		else this.changed.changed();
		return true;
	}

	dismiss(): void {
		this.problem = null;
		this.changed.changed();
	}

	resetAll(): void {
		const moved = [...this.#values.keys()].filter((id) => this.get(id) !== 0);
		if (moved.length === 0) return;
		for (const id of moved) this.#values.set(id, 0);
		this.problem = null;
		this.#announce(moved);
	}

	/** Forget vectors that the server does not know: a start that names one is refused. */
	keepOnly(ids: ReadonlySet<string>): void {
		for (const id of this.#values.keys()) if (!ids.has(id)) this.#values.delete(id);
		for (const id of this.#settings.keys()) if (!ids.has(id)) this.#settings.delete(id);
		this.changed.changed();
	}

	/** A run begins with the present strengths as revision 0. One that is away is heard of with `resumed`. */
	attach(run: RunState): void {
		this.#quiet();
		this.#run = run;
		this.#changedIn = new Map();
		this.#onIn = new Map();
		for (const [id, value] of this.#values) if (value !== 0) this.#changedIn.set(id, 0);
		this.#noteOn(0, this.strengths());
		this.#sender = new SteerSender((rev, steered) => {
			if (run.run === null || !this.send(run.run, rev, steered)) return false;
			for (const id of this.#pending) this.#changedIn.set(id, rev);
			this.#pending.clear();
			this.#noteOn(rev, steered.strengths);
			this.changed.changed();
			return true;
		}, this.clock);
		if (run.away) this.#sender.hold();
		this.changed.changed();
	}

	/** The run was admitted: what moved since `start` was sent can travel now. */
	started(run: RunState): void {
		if (run === this.#run && !same(run.steered, this.steered())) this.#sender?.change(this.steered());
	}

	/** The line to the run is down: what moves now travels when it is back. */
	hold(run: RunState): void {
		if (run !== this.#run) return;
		this.#sender?.hold();
		this.changed.changed();
	}

	/** The server says how the run is steered now, at its newest revision. */
	resumed(run: RunState, rev: number, { strengths, settings }: Steered): void {
		const sender = this.#sender;
		if (run !== this.#run || sender === null) return;
		// What the server has not had was lost on the way.
		for (const [id, changed] of this.#changedIn) if (changed > rev) this.#pending.add(id);
		for (const id of new Set([...this.#values.keys(), ...Object.keys(strengths)])) {
			if (!this.#pending.has(id)) this.#adopt(id, strengths[id] ?? 0, fromWire(settings[id]), rev);
		}
		sender.atLeast(rev);
		this.#noteOn(rev, strengths);
		if (this.#pending.size > 0 && run.live) sender.change(this.steered());
		sender.release();
		this.changed.changed();
	}

	/** A revision is in force. True when it is none of ours, so that the sliders may be wrong. */
	applied(run: RunState, rev: number): boolean {
		const sender = this.#sender;
		if (run !== this.#run || sender === null || rev <= sender.rev) return false;
		sender.atLeast(rev);
		return true;
	}

	/** Somebody else took the revisions that were sent: everything is said again when `resumed` names the newest. */
	stale(run: RunState): void {
		if (run !== this.#run) return;
		for (const [id, changed] of this.#changedIn) if (changed > 0) this.#pending.add(id);
		this.#sender?.hold();
		this.changed.changed();
	}

	/** The server had too much at once: what is not in force in a moment is said again. */
	refused(run: RunState): void {
		const sender = this.#sender;
		if (run !== this.#run || sender === null || this.#again !== null) return;
		this.#again = this.clock.setTimeout(() => {
			this.#again = null;
			if (!run.live || run.applied.some(({ rev }) => rev >= sender.rev)) return;
			for (const [id, changed] of this.#changedIn) if (changed === sender.rev) this.#pending.add(id);
			sender.change(this.steered());
		}, AGAIN_MS);
	}

	/** The run was refused or put away: nothing of it concerns the sliders any more. */
	detach(run: RunState): void {
		if (run !== this.#run) return;
		this.#quiet();
		this.#run = null;
		this.#sender = null;
		this.#changedIn.clear();
		this.#onIn.clear();
		this.changed.changed();
	}

	/** The run is over: waiting changes belong to the next run. */
	ended(run: RunState): void {
		if (run === this.#run) this.#quiet();
		this.changed.changed();
	}

	status(id: string): SliderStatus {
		const run = this.#run;
		const rev = this.#changedIn.get(id);
		if (run === null || rev === undefined) return this.get(id) === 0 ? { kind: "idle" } : { kind: "next" };
		if (run.live && this.#pending.has(id))
			return this.#sender?.held ? { kind: "held" } : { kind: "sent", rev };
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

	/** Nothing of the present run waits any more. */
	#quiet(): void {
		this.#sender?.end();
		if (this.#again !== null) this.clock.clearTimeout(this.#again);
		this.#again = null;
		this.#pending.clear();
	}

	#adopt(id: string, strength: number, setting: Setting, rev: number): void {
		const acts = strength === 0 ? this.setting(id) : setting;
		if (strength === this.get(id) && JSON.stringify(acts) === JSON.stringify(this.setting(id))) {
			// The value is the run's, though perhaps chosen before the run was known here.
			if (strength !== 0 && !this.#changedIn.has(id)) this.#changedIn.set(id, rev);
			return;
		}
		this.#values.set(id, strength);
		this.#settings.set(id, acts);
		this.#changedIn.set(id, rev);
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
			for (const id of ids) {
				this.#changedIn.set(id, this.#sender.nextRev);
				this.#pending.add(id);
			}
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
