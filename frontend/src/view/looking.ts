// What a person does to the view, each a step that can be taken back. A step sets what it changed and nothing else: by
// the time it is taken back, a new reply may be on the map.
import type { History } from "./history";
import type { Range, ViewStore } from "./view";

export class Looking {
	constructor(
		private readonly view: ViewStore,
		private readonly history: History,
		/** Told when another run is on the map, also by a step back. */
		private readonly onShown: () => void,
	) {}

	/** Put another metric on the map; `label` is what the person knows it as. */
	pickMetric(metric: string, label: string): void {
		const before = this.view.main.metric;
		if (before === metric) return;
		this.#do(`show ${label}`, "metric", before, metric, (id) => this.view.changeMain({ metric: id }));
	}

	/** Put another run on the map, by the page's id. */
	show(run: string): void {
		const before = this.view.main.run;
		if (before === run) return;
		this.#do("show another reply", "run", before, run, (id) => {
			this.view.changeMain({ run: id });
			this.onShown();
		});
	}

	setZoom(zoom: number): void {
		const before = this.view.now.zoom;
		if (before === zoom) return;
		this.#do("width of the columns", "zoom", before, zoom, (width) => this.view.change({ zoom: width }));
	}

	/** Set the ends of a metric's scale; null lets the numbers decide again. */
	setRange(metric: string, range: Range | null): void {
		const before = this.view.now.ranges[metric] ?? null;
		if (before === range) return;
		const place = `range:${metric}${range === null ? ":auto" : ""}`;
		this.#do("scale of colours", place, before, range, (ends) => this.view.setRange(metric, ends));
	}

	#do<T>(what: string, place: string, before: T, after: T, set: (value: T) => void): void {
		set(after);
		this.history.did({ what, place, undo: () => set(before), redo: () => set(after) });
	}
}
