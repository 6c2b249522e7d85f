// The sliders as the page uses them: moved by a person, by a command, by a link, or by what the server says of the
// run that they steer. Where they stand is kept in `Sliders`; how they stand to the present run in `SteeredRun`.
import type { Timers } from "../connection/clock";
import type { Limits } from "../protocol/types.gen";
import type { Run, Steered } from "../store/run";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import type { History } from "../view/history";
import { fromWire, type Setting, type Strengths } from "./setting";
import { Sliders, type Stand } from "./sliders";
import { type SendSteer, SteeredRun } from "./steered";

export type SliderStatus =
	| { kind: "idle" }
	/** Set between runs: the next reply starts with it. */
	| { kind: "next" }
	/** Moved while the line is down. */
	| { kind: "held" }
	| { kind: "sent"; rev: number }
	| { kind: "in-force"; position: number };

/** Where moved sliders are noted as steps that can be taken back, and what a vector is called there. */
export interface Steps {
	history: History;
	label(vector: string): string;
}

export class Steering {
	readonly changed: Signal;
	/** Why the last slider that was moved stayed where it was, as a sentence, or null. */
	problem: string | null = null;
	readonly #sliders = new Sliders();
	/** Vectors that the server has; null until it has said so. */
	#known: ReadonlySet<string> | null = null;
	/** The run that the sliders steer, or steered last. */
	#present: SteeredRun | null = null;

	constructor(
		private readonly send: SendSteer,
		private readonly clock: Timers,
		batch: FrameBatch = pageBatch,
		private readonly steps: Steps | null = null,
	) {
		this.changed = new Signal(batch);
	}

	set limits(limits: Pick<Limits, "max_vectors" | "max_strength">) {
		this.#sliders.limits = limits;
	}

	get run(): Run | null {
		return this.#present?.run ?? null;
	}

	get(id: string): number {
		return this.#sliders.get(id);
	}

	setting(id: string): Setting {
		return this.#sliders.setting(id);
	}

	strengths(): Strengths {
		return this.#sliders.strengths();
	}

	steered(): Steered {
		return this.#sliders.steered();
	}

	/** False where the server would refuse it; `problem` then says why. */
	set(id: string, strength: number): boolean {
		return this.act(id, this.setting(id), strength);
	}

	/** How a vector acts from now on, with a strength that fits that way. False as with `set`. */
	act(id: string, setting: Setting, strength: number = this.get(id)): boolean {
		if (!Number.isFinite(strength)) return false;
		const before = new Map([[id, this.#sliders.stand(id)]]);
		this.problem = this.#sliders.roomProblem(id, strength);
		if (this.problem === null && this.#sliders.put(id, setting, strength)) {
			// At 0 nothing acts, however it would.
			if (this.get(id) !== 0 || this.concerns(id)) this.#present?.move([id]);
			this.#remember(`slider:${id}`, before);
		}
		this.changed.changed();
		return this.problem === null;
	}

	dismiss(): void {
		this.problem = null;
		this.changed.changed();
	}

	resetAll(): void {
		const before = new Map(Object.keys(this.strengths()).map((id) => [id, this.#sliders.stand(id)]));
		const moved = this.#sliders.reset();
		if (moved.length === 0) return;
		this.problem = null;
		this.#present?.move(moved);
		this.#remember("sliders:reset", before);
		this.changed.changed();
	}

	/** The sliders stand like this from now on: nobody has moved them, and nothing of it travels. */
	place({ strengths, settings }: Steered): void {
		for (const id of new Set([...this.#sliders.moved, ...Object.keys(strengths)])) {
			this.#sliders.adopt(id, strengths[id] ?? 0, fromWire(settings[id]));
		}
		this.changed.changed();
	}

	keepOnly(ids: ReadonlySet<string>): void {
		this.#known = ids;
		this.#sliders.keepOnly(ids);
		this.changed.changed();
	}

	/** A run begins with the present strengths as revision 0. One that is away is heard of with `resumed`. */
	attach(run: Run): void {
		this.#present?.end();
		const told = () => this.changed.changed();
		this.#present = new SteeredRun(run, this.#sliders, this.send, this.clock, told);
		this.changed.changed();
	}

	/** The run was refused or put away: nothing of it concerns the sliders any more. */
	detach(run: Run): void {
		this.#tell(run, (present) => {
			present.end();
			this.#present = null;
		});
	}

	started(run: Run): void {
		this.#tell(run, (present) => present.started());
	}

	hold(run: Run): void {
		this.#tell(run, (present) => present.hold());
	}

	resumed(run: Run, rev: number, steered: Steered): void {
		this.#tell(run, (present) => present.resumed(rev, steered));
	}

	/** A revision is in force. True when it is none of ours, so that the sliders may be wrong. */
	applied(run: Run, rev: number): boolean {
		let strange = false;
		this.#tell(run, (present) => {
			strange = present.applied(rev);
		});
		return strange;
	}

	stale(run: Run): void {
		this.#tell(run, (present) => present.stale());
	}

	refused(run: Run): void {
		this.#tell(run, (present) => present.refused());
	}

	ended(run: Run): void {
		this.#tell(run, (present) => present.end());
	}

	status(id: string): SliderStatus {
		const standing = this.#present?.standing(id) ?? { kind: "unchanged" };
		if (standing.kind === "unchanged" || standing.kind === "too-late") {
			return { kind: this.get(id) === 0 ? "idle" : "next" };
		}
		return standing;
	}

	/** Whether a vector acts or acted in the run that the sliders steer; only then is there anything to say of it there. */
	concerns(id: string): boolean {
		return this.#present?.concerns(id) === true;
	}

	/** Whether a vector acts, or is about to, in the run that the sliders steer: not only in the next one. */
	acts(id: string): boolean {
		return this.get(id) !== 0 && this.concerns(id);
	}

	/** Whether tokens of this run were computed under a vector that was put back to 0 while it was written. */
	leftBehind(id: string): boolean {
		const present = this.#present;
		return present !== null && this.get(id) === 0 && present.concerns(id) && present.actedOn(id);
	}

	/** A person moved these sliders from where they stood. */
	#remember(place: string, before: ReadonlyMap<string, Stand>): void {
		const after = new Map([...before.keys()].map((id) => [id, this.#sliders.stand(id)]));
		const to = (stands: ReadonlyMap<string, Stand>) => () => {
			for (const [id, { setting, strength }] of stands) {
				// By then the server may not have it any more.
				if (this.#known?.has(id) !== false) this.act(id, setting, strength);
			}
		};
		const [[id, stand]] = [...after] as [[string, Stand]];
		const what =
			after.size === 1
				? `${this.steps?.label(id)} ${stand.strength.toFixed(2)}`
				: `${after.size} sliders to 0`;
		this.steps?.history.did({ what, place, undo: to(before), redo: to(after) });
	}

	/** Hand on what happened to a run, if it is the one that the sliders steer. */
	#tell(run: Run, what: (present: SteeredRun) => void): void {
		if (this.#present?.run !== run) return;
		what(this.#present);
		this.changed.changed();
	}
}
