// Steps back and forth over what a person did on the page: sliders, view, branch. Never over what was asked of a server:
// a question that was sent stays sent. What is done again and again at one place, such as a dragged slider, is one
// step, as long as nothing else comes between and no moment passes.
import { type FrameBatch, pageBatch, Signal } from "../store/signal";

export interface Step {
	/** In words, as in "Undo: French 0.25". */
	what: string;
	/** Steps of one place: a new one of the same place goes into the last, if that is not long ago. */
	place: string;
	undo(): void;
	redo(): void;
}

/** Longer than between two moves of a hand. */
export const ONE_STEP_MS = 1_000;
export const MOST_STEPS = 200;

export class History {
	readonly changed: Signal;
	#done: Step[] = [];
	#undone: Step[] = [];
	#lastAt = Number.NEGATIVE_INFINITY;
	/** A step is being taken back or again: what it sets is no step of its own. */
	#busy = false;

	constructor(
		private readonly now: () => number,
		batch: FrameBatch = pageBatch,
	) {
		this.changed = new Signal(batch);
	}

	/** What `undo` would take back; null where there is nothing. */
	get undoable(): string | null {
		return this.#done.at(-1)?.what ?? null;
	}

	get redoable(): string | null {
		return this.#undone.at(-1)?.what ?? null;
	}

	/** Something was done. */
	did(step: Step): void {
		if (this.#busy) return;
		const last = this.#done.at(-1);
		const now = this.now();
		const goesOn =
			last?.place === step.place && now - this.#lastAt < ONE_STEP_MS && this.#undone.length === 0;
		this.#lastAt = now;
		if (goesOn) this.#done[this.#done.length - 1] = { ...step, undo: last.undo };
		else this.#done.push(step);
		if (this.#done.length > MOST_STEPS) this.#done.shift();
		this.#undone = [];
		this.changed.changed();
	}

	undo(): boolean {
		return this.#move(this.#done, this.#undone, (step) => step.undo());
	}

	redo(): boolean {
		return this.#move(this.#undone, this.#done, (step) => step.redo());
	}

	/** What was done is not to be taken back any more: it was done in a conversation that is gone. */
	clear(): void {
		this.#done = [];
		this.#undone = [];
		this.changed.changed();
	}

	#move(from: Step[], to: Step[], act: (step: Step) => void): boolean {
		const step = from.pop();
		if (step === undefined) return false;
		this.#busy = true;
		try {
			act(step);
		} finally {
			this.#busy = false;
		}
		to.push(step);
		// The next move of the hand is a step of its own.
		this.#lastAt = Number.NEGATIVE_INFINITY;
		this.changed.changed();
		return true;
	}
}
