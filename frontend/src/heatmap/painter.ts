// Keeps the backing of the map up to date with one field: new columns only, unless the scale or the colours changed;
// then all of it has other colours.
import type { MetricInfo } from "../protocol/types.gen";
import type { Field } from "../store/field";
import { Backing, coloursOf, type MakeTile } from "./backing";
import { tableOf } from "./colour";
import { type Range, ScaleFit } from "./scale";

/** What the colours of the map mean: a range in sent numbers, and the colours from its low end to its high end. */
export interface Drawn {
	range: Range;
	table: Uint8ClampedArray;
}

export interface Subject {
	field: Field;
	/** How its numbers are to be read: their transform, and the kind of scale. */
	metric: MetricInfo;
	/** In sent numbers; null where the numbers decide. */
	range: Range | null;
	dark: boolean;
}

export class Painter {
	#backing: Backing | null = null;
	#fit: ScaleFit | null = null;
	#drawn: Drawn | null = null;
	#subject: Subject | null = null;
	/** Entries of the field's change log that the backing knows. */
	#marked = 0;

	/** `onDrawn` is told when the colours mean something else, and null when there is nothing to colour. */
	constructor(
		private readonly onDrawn: (drawn: Drawn | null) => void,
		private readonly makeTile: MakeTile,
	) {}

	/** What is to be painted from now on; null for nothing. */
	show(subject: Subject | null): void {
		const before = this.#subject;
		if (subject?.field !== before?.field) this.#backing = null;
		if (subject?.field !== before?.field || subject?.metric !== before?.metric) this.#fit = null;
		this.#subject = subject;
	}

	/** Take in what came since the last time. Null where nothing can be coloured. */
	update(): Backing | null {
		const subject = this.#subject;
		subject?.field.sync();
		// A metric that a run was not watched with has nothing to fit a scale to, and nothing to draw. What lies on the
		// shelf has neither until it is back; then all of it is coloured anew.
		if (subject === null || subject.field.empty || subject.field.shelved) {
			this.#backing = null;
			if (this.#drawn !== null) this.onDrawn(null);
			this.#drawn = null;
			return null;
		}
		const { field, metric, dark } = subject;
		this.#fit ??= new ScaleFit(metric);
		const range = subject.range ?? this.#fit.update(field);
		const table = tableOf(metric, dark);
		const fresh = this.#backing === null;
		this.#backing ??= new Backing(field, this.makeTile);
		if (fresh || range !== this.#drawn?.range || table !== this.#drawn.table) {
			this.#backing.recolour(coloursOf(metric, range, table));
			if (range !== this.#drawn?.range || table !== this.#drawn.table) {
				this.#drawn = { range, table };
				this.onDrawn(this.#drawn);
			}
		} else {
			for (let i = this.#marked; i < field.changes.length; i++) {
				const { start, end } = field.changes[i]!;
				this.#backing.mark(start, end);
			}
		}
		this.#marked = field.changes.length;
		return this.#backing;
	}
}
