// What a person looks at, as plain values: a link, a recording and a step back can hold it as it stands. What is drawn
// follows from it and from the runs; nothing here knows either. The cursor is apart (`session/cursor.ts`), since it
// moves with every pointer.
import { type FrameBatch, pageBatch, Signal } from "../store/signal";

/** In sent numbers. */
export interface Range {
	readonly lo: number;
	readonly hi: number;
}

/** What a map's numbers are shown against. */
export type Baseline =
	/** Nothing: as they are. */
	| { readonly kind: "absolute" }
	/** What is usual for their layer in the run. */
	| { readonly kind: "usual" }
	/** The mean of a stretch of positions, per layer. */
	| { readonly kind: "span"; readonly start: number; readonly end: number }
	/** Another run, where it has the same tokens in front. */
	| { readonly kind: "run"; readonly run: string };

/** One map. */
export interface Pane {
	/** The page's id of the run; null shows none. */
	readonly run: string | null;
	/** The metric by its id. */
	readonly metric: string | null;
	readonly baseline: Baseline;
}

export interface Cell {
	readonly run: string;
	readonly position: number;
	/** Null for a whole column. */
	readonly layer: number | null;
}

export interface View {
	/** At least one; the first is the map beside the text. */
	readonly panes: readonly [Pane, ...Pane[]];
	/** Ends of a metric's scale, by its id, where a person has set them; the numbers decide the others. */
	readonly ranges: Readonly<Record<string, Range>>;
	/** Index of the columns' width among those that the map has. */
	readonly zoom: number;
	readonly pins: readonly Cell[];
	/** Positions [start, end) of a run that are selected. */
	readonly selection: { readonly run: string; readonly start: number; readonly end: number } | null;
}

export const ABSOLUTE: Baseline = { kind: "absolute" };

export function firstView(zoom: number): View {
	return {
		panes: [{ run: null, metric: null, baseline: ABSOLUTE }],
		ranges: {},
		zoom,
		pins: [],
		selection: null,
	};
}

export class ViewStore {
	readonly changed: Signal;
	#now: View;

	constructor(first: View, batch: FrameBatch = pageBatch) {
		this.changed = new Signal(batch);
		this.#now = first;
	}

	get now(): View {
		return this.#now;
	}

	/** The map beside the text. */
	get main(): Pane {
		return this.#now.panes[0];
	}

	/** Whether any map shows a run, or is drawn against it; by the page's id. */
	shows(id: string): boolean {
		return this.#now.panes.some(
			({ run, baseline }) => run === id || (baseline.kind === "run" && baseline.run === id),
		);
	}

	change(change: Partial<View>): void {
		this.#now = { ...this.#now, ...change };
		this.changed.changed();
	}

	changeMain(change: Partial<Pane>): void {
		const [main, ...others] = this.#now.panes;
		this.change({ panes: [{ ...main, ...change }, ...others] });
	}

	/** Set the ends of a metric's scale; null lets its numbers decide again. */
	setRange(metric: string, range: Range | null): void {
		const { [metric]: _, ...others } = this.#now.ranges;
		this.change({ ranges: range === null ? others : { ...others, [metric]: range } });
	}
}
