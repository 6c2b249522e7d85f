// The sliders and one run: which revision carries which change, what waits, and what is in force. A change is in
// force only when the server has named the position of a row that was computed with its revision or a newer one;
// receipt is not application.
//
// The run may be steered from elsewhere too, another tab say, and its line may be down for a while. When the server
// says how it stands, sliders that were moved here meanwhile keep their value and travel; the others take the
// run's.
import type { Timers } from "../connection/clock";
import type { Run, Steered } from "../store/run";
import { SteerSender } from "./sender";
import { fromWire, type Strengths } from "./setting";
import type { Sliders } from "./sliders";

/** How long to wait before saying again what the server refused as too much at once. */
export const AGAIN_MS = 1_000;

export type SendSteer = (run: string, rev: number, steered: Steered) => boolean;

/** How a vector stands to the run. */
export type Standing =
	/** Not changed in this run. */
	| { kind: "unchanged" }
	/** Changed while the line is down. */
	| { kind: "held" }
	| { kind: "sent"; rev: number }
	| { kind: "in-force"; position: number }
	/** Changed, and the run ended before that was in force. */
	| { kind: "too-late" };

export class SteeredRun {
	/** Revision in which a vector last changed; 0 for the strengths that the run began with. */
	#changedIn = new Map<string, number>();
	/** Revisions that carried a strength for a vector. */
	#onIn = new Map<string, Set<number>>();
	/** Vectors that were changed and not sent since. */
	#pending = new Set<string>();
	#again: unknown = null;
	readonly #sender: SteerSender<Steered>;

	/** The run begins with what the sliders say now. `told` is called when something travelled. */
	constructor(
		readonly run: Run,
		private readonly sliders: Sliders,
		send: SendSteer,
		private readonly clock: Timers,
		told: () => void,
	) {
		const strengths = sliders.strengths();
		for (const id of Object.keys(strengths)) this.#changedIn.set(id, 0);
		this.#carries(0, strengths);
		this.#sender = new SteerSender((rev, steered) => {
			if (run.name === null || !send(run.name, rev, steered)) return false;
			for (const id of this.#pending) this.#changedIn.set(id, rev);
			this.#pending.clear();
			this.#carries(rev, steered.strengths);
			told();
			return true;
		}, clock);
		if (run.delivery.away) this.#sender.hold();
	}

	/** Whether a vector was changed in this run, or acted when it began. */
	concerns(id: string): boolean {
		return this.#changedIn.has(id);
	}

	/** These sliders were moved. */
	move(ids: readonly string[]): void {
		if (!this.run.delivery.live) {
			// The run is over: a change belongs to the next one.
			for (const id of ids) this.#changedIn.delete(id);
			return;
		}
		for (const id of ids) {
			this.#changedIn.set(id, this.#sender.nextRev);
			this.#pending.add(id);
		}
		// Before `started` the run has no name to steer by; `started` catches up.
		if (this.run.name !== null) this.#sender.change(this.sliders.steered());
	}

	/** The run was admitted: what moved since `start` was sent can travel now. */
	started(): void {
		const steered = this.sliders.steered();
		if (!same(this.run.steered, steered)) this.#sender.change(steered);
	}

	/** The line to the run is down: what moves now travels when it is back. */
	hold(): void {
		this.#sender.hold();
	}

	/** The server says how the run is steered now, at its newest revision. */
	resumed(rev: number, { strengths, settings }: Steered): void {
		// What the server has not had was lost on the way.
		this.#sayAgain((changed) => changed > rev);
		for (const id of new Set([...this.sliders.moved, ...Object.keys(strengths)])) {
			if (this.#pending.has(id)) continue;
			const strength = strengths[id] ?? 0;
			const adopted = this.sliders.adopt(id, strength, fromWire(settings[id]));
			// A value that is the run's already may have been chosen before the run was known here.
			if (adopted || (strength !== 0 && !this.#changedIn.has(id))) this.#changedIn.set(id, rev);
		}
		this.#sender.atLeast(rev);
		this.#carries(rev, strengths);
		if (this.#pending.size > 0 && this.run.delivery.live) this.#sender.change(this.sliders.steered());
		this.#sender.release();
	}

	/** A revision is in force. True when it is none of ours, so that the sliders may be wrong. */
	applied(rev: number): boolean {
		if (rev <= this.#sender.rev) return false;
		this.#sender.atLeast(rev);
		return true;
	}

	/** Somebody else took the revisions that were sent: everything is said again when `resumed` names the newest. */
	stale(): void {
		this.#sayAgain((changed) => changed > 0);
		this.#sender.hold();
	}

	/** The server had too much at once: what is not in force in a moment is said again. */
	refused(): void {
		if (this.#again !== null) return;
		this.#again = this.clock.setTimeout(() => {
			this.#again = null;
			const { rev } = this.#sender;
			if (!this.run.delivery.live || this.run.applied.some((applied) => applied.rev >= rev)) return;
			this.#sayAgain((changed) => changed === rev);
			this.#sender.change(this.sliders.steered());
		}, AGAIN_MS);
	}

	/** Nothing waits any more: the run is over, or put away. */
	end(): void {
		this.#sender.end();
		if (this.#again !== null) this.clock.clearTimeout(this.#again);
		this.#again = null;
		this.#pending.clear();
	}

	standing(id: string): Standing {
		const rev = this.#changedIn.get(id);
		const { live } = this.run.delivery;
		if (rev === undefined) return { kind: "unchanged" };
		if (live && this.#pending.has(id)) return this.#sender.held ? { kind: "held" } : { kind: "sent", rev };
		const position = firstInForce(this.run, rev);
		if (position !== null) return { kind: "in-force", position };
		return live ? { kind: "sent", rev } : { kind: "too-late" };
	}

	/** Whether tokens of this run were computed with a strength for a vector. */
	actedOn(id: string): boolean {
		const on = this.#onIn.get(id);
		if (on === undefined) return false;
		if (on.has(0) && firstInForce(this.run, 0) !== null) return true;
		return this.run.rows.boundaries().some(({ rev }) => on.has(rev));
	}

	#carries(rev: number, strengths: Strengths): void {
		for (const id of Object.keys(strengths)) {
			const revs = this.#onIn.get(id) ?? new Set();
			this.#onIn.set(id, revs.add(rev));
		}
	}

	#sayAgain(which: (changedIn: number) => boolean): void {
		for (const [id, rev] of this.#changedIn) if (which(rev)) this.#pending.add(id);
	}
}

/** Position from which revision `rev` or a newer one is in force, or null when that is not yet known. */
function firstInForce(run: Run, rev: number): number | null {
	if (rev === 0) return run.rows.columns > 0 || run.tokens.ids.length > 0 ? 0 : null;
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
