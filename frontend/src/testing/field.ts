// A field that is one run's rows and nothing else: what a map of one turn comes to. Used by tests only.
import type { Field } from "../store/field";
import type { Change, RowStore } from "../store/rows";

/** The rows of one metric of a run. */
export class MetricField implements Field {
	constructor(
		private readonly rows: RowStore,
		readonly metric: string,
	) {}

	/** Its rows are its own. */
	sync(): void {}

	get layers(): number {
		return this.rows.layers;
	}

	get columns(): number {
		return this.rows.columns;
	}

	get empty(): boolean {
		return !this.rows.carries(this.metric);
	}

	get shelved(): boolean {
		return this.rows.state === "shelved";
	}

	get changes(): readonly Change[] {
		return this.rows.changes;
	}

	get first(): number | null {
		return this.rows.first(this.metric);
	}

	chunk(index: number): Uint16Array | undefined {
		return this.rows.chunk(this.metric, index);
	}
}
