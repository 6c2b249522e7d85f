// Keeps the backing of the map up to date with one run and one metric: new columns only, unless the scale or the
// colours changed; then all of it is coloured anew.
import type { MetricInfo } from "../protocol/types.gen";
import type { RunState } from "../store/run";
import { Backing, type MakeTile } from "./backing";
import { tableOf } from "./colour";
import { type Range, ScaleFit } from "./scale";

/** What the colours of the map mean: a range in sent numbers, and the colours from its low end to its high end. */
export interface Drawn {
	range: Range;
	table: Uint8ClampedArray;
}

export class Painter {
	#backing: Backing | null = null;
	#fit: ScaleFit | null = null;
	#drawn: Drawn | null = null;
	#run: RunState | null = null;
	#metric: MetricInfo | null = null;
	#dark = false;
	/** Entries of the run's change log that are in the backing. */
	#painted = 0;

	/** `onDrawn` is told when the colours mean something else, and null when there is nothing to colour. */
	constructor(
		private readonly onDrawn: (drawn: Drawn | null) => void,
		private readonly makeTile: MakeTile,
	) {}

	/** What is to be painted from now on. */
	show(run: RunState | null, metric: MetricInfo | null, dark: boolean): void {
		const same = run === this.#run && metric === this.#metric;
		if (!same) this.#fit = null;
		if (!same || dark !== this.#dark) this.#backing = null;
		this.#run = run;
		this.#metric = metric;
		this.#dark = dark;
	}

	/** Take in what came since the last time. Null where nothing can be coloured. */
	update(): Backing | null {
		const [run, metric] = [this.#run, this.#metric];
		// A metric that this run was not watched with has nothing to fit a scale to, and nothing to draw.
		if (run === null || metric === null || run.rows.values(metric.id) === undefined) {
			this.#backing = null;
			if (this.#drawn !== null) this.onDrawn(null);
			this.#drawn = null;
			return null;
		}
		const { rows } = run;
		this.#fit ??= new ScaleFit(metric);
		const range = this.#fit.update(rows);
		const table = tableOf(metric, this.#dark);
		const paint = { metric, range, table };
		if (this.#backing === null || range !== this.#drawn?.range) {
			this.#backing = new Backing(rows.layers, this.makeTile);
			this.#backing.paint(rows, paint, 0, rows.columns);
			this.#drawn = { range, table };
			this.onDrawn(this.#drawn);
		} else {
			for (let i = this.#painted; i < rows.changes.length; i++) {
				const { start, end } = rows.changes[i]!;
				this.#backing.paint(rows, paint, start, end);
			}
		}
		this.#painted = rows.changes.length;
		return this.#backing;
	}
}
