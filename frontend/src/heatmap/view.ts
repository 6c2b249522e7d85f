// The edge between the pure heatmap and the page: two canvases in a scroller, sizes, pointers, themes. It
// asks the run what is new and paints only that; everything is redrawn from the backing at most once per
// frame. The strip follows its tail until the person scrolls back, and again once they return to the end.
import type { MetricInfo } from "../protocol/types.gen";
import type { Cursor, CursorStore } from "../session/cursor";
import type { RunState } from "../store/run";
import { pageBatch, Signal } from "../store/signal";
import { Backing, type Tile } from "./backing";
import { DIVERGING, SEQUENTIAL } from "./colour";
import { onDensity } from "./density";
import { drawStatic, type Ink } from "./draw";
import {
	type Anchor,
	type Cell,
	cellAt,
	columnX,
	contentWidth,
	type Geometry,
	layerY,
	layout,
	type Size,
	scrollTo,
	tailScroll,
	visibleColumns,
} from "./geometry";
import { readInk } from "./ink";
import { drawOverlay } from "./overlay";
import { type Range, ScaleFit } from "./scale";

export interface ViewElements {
	/** Carries the data attributes that say what is drawn. */
	host: HTMLElement;
	scroller: HTMLElement;
	/** As wide as all columns; gives the scroller its range. */
	track: HTMLElement;
	cells: HTMLCanvasElement;
	overlay: HTMLCanvasElement;
}

export interface ViewEvents {
	onRange(range: Range | null, table: Uint8ClampedArray): void;
	onFollowing(following: boolean): void;
}

export interface ViewSubject {
	run: RunState | null;
	metric: MetricInfo | null;
	/** Rows of the plot before the first row has come. */
	layers: number;
	columnWidth: number;
	dark: boolean;
}

export class HeatmapView {
	/** The cells moved in the view: something that is placed by `locate` must be placed again. */
	readonly moved = new Signal();
	#subject: ViewSubject = { run: null, metric: null, layers: 0, columnWidth: 13, dark: false };
	#ink: Ink | null = null;
	#size: Size = { width: 0, height: 0, ratio: 1 };
	#geometry: Geometry | null = null;
	#backing: Backing | null = null;
	#fit: ScaleFit | null = null;
	#range: Range | null = null;
	/** Entries of the run's change log that are in the backing. */
	#painted = 0;
	#following = true;
	#unsubscribeRun: (() => void) | null = null;
	#disposers: (() => void)[] = [];
	readonly #draw = () => this.#drawAll();
	readonly #drawCursor = () => this.#drawTop();

	constructor(
		private readonly elements: ViewElements,
		private readonly cursor: CursorStore,
		private readonly events: ViewEvents,
	) {
		const { scroller } = elements;
		const resizes = new ResizeObserver(() => pageBatch.add(this.#draw));
		resizes.observe(scroller);
		const onScroll = () => this.#onScroll();
		scroller.addEventListener("scroll", onScroll, { passive: true });
		this.#disposers.push(
			() => resizes.disconnect(),
			() => scroller.removeEventListener("scroll", onScroll),
			onDensity(() => pageBatch.add(this.#draw)),
			cursor.changed.subscribe(this.#drawCursor),
		);
	}

	dispose(): void {
		for (const dispose of this.#disposers) dispose();
		this.#unsubscribeRun?.();
	}

	show(subject: ViewSubject): void {
		const before = this.#subject;
		this.#subject = subject;
		if (subject.run !== before.run) {
			this.#unsubscribeRun?.();
			this.#unsubscribeRun = subject.run?.changed.subscribe(this.#draw) ?? null;
			this.#follow(true);
		}
		if (subject.dark !== before.dark) this.#ink = null;
		if (subject.run !== before.run || subject.metric !== before.metric || subject.dark !== before.dark) {
			this.#backing = null;
		}
		if (subject.run !== before.run || subject.metric !== before.metric) this.#fit = null;
		pageBatch.add(this.#draw);
	}

	jumpToLatest(): void {
		this.#follow(true);
		pageBatch.add(this.#draw);
	}

	/** The cell under a point in CSS pixels from the top left of the canvas. */
	hit(x: number, y: number): Cell | null {
		const g = this.#geometry;
		const run = this.#subject.run;
		if (g === null || run === null) return null;
		return cellAt(g, this.#scroll(g), run.length, x * g.ratio, y * g.ratio);
	}

	/** Where a cursor's cell is, in CSS pixels from the top left of the canvas; null out of view. */
	locate(cursor: Cursor): Anchor | null {
		const g = this.#geometry;
		const run = this.#subject.run;
		if (g === null || run === null) return null;
		const x = columnX(g, this.#scroll(g), cursor.position);
		if (x + g.cellWidth <= g.left || x >= g.width) return null;
		const y = layerY(g, cursor.layer ?? g.layers - 1);
		const [width, height] = [g.cellWidth / g.ratio, g.cellHeight / g.ratio];
		return { x: x / g.ratio, y: y / g.ratio, width, height };
	}

	/** Whole columns that fit in the view: the step of a page key. */
	pageColumns(): number {
		const g = this.#geometry;
		return g === null ? 10 : Math.max(1, Math.floor(g.plotWidth / g.cellWidth) - 2);
	}

	reveal(position: number): void {
		const g = this.#geometry;
		const run = this.#subject.run;
		if (g === null || run === null) return;
		const now = this.#scroll(g);
		const next = scrollTo(g, now, position, run.length);
		if (next === now) return;
		this.#follow(next >= tailScroll(g, run.length));
		this.elements.scroller.scrollLeft = next / g.ratio;
		pageBatch.add(this.#draw);
	}

	#scroll(g: Geometry): number {
		return Math.round(this.elements.scroller.scrollLeft * g.ratio);
	}

	#follow(following: boolean): void {
		if (following === this.#following) return;
		this.#following = following;
		this.events.onFollowing(following);
	}

	#onScroll(): void {
		const { scroller } = this.elements;
		const left = scroller.scrollWidth - scroller.clientWidth - scroller.scrollLeft;
		this.#follow(left <= 2);
		pageBatch.add(this.#draw);
	}

	#measure(): void {
		const { scroller, cells, overlay } = this.elements;
		const ratio = devicePixelRatio || 1;
		const width = Math.round(scroller.clientWidth * ratio);
		const height = Math.round(scroller.clientHeight * ratio);
		if (width === this.#size.width && height === this.#size.height && ratio === this.#size.ratio) return;
		this.#size = { width, height, ratio };
		for (const canvas of [cells, overlay]) {
			canvas.width = width;
			canvas.height = height;
			// The CSS size follows from the device size, never the reverse, or cells would be resampled.
			canvas.style.width = `${width / ratio}px`;
			canvas.style.height = `${height / ratio}px`;
		}
	}

	#drawAll(): void {
		const { run, columnWidth, layers } = this.#subject;
		const { scroller, track, cells } = this.elements;
		const tokens = run?.length ?? 0;
		this.#measure();
		this.#ink ??= readInk(this.elements.host);
		const g = layout(this.#size, run?.rows.layers || layers, columnWidth);
		this.#geometry = g;
		track.style.width = `${(g.left + contentWidth(g, tokens)) / g.ratio}px`;
		if (this.#following) scroller.scrollLeft = scroller.scrollWidth;
		const context = cells.getContext("2d");
		if (context === null) return;
		this.#paint();
		drawStatic(context, g, this.#scroll(g), run, this.#backing, this.#ink);
		this.#drawTop();
		this.#describe();
		this.moved.changed();
	}

	/** Bring the backing up to date: new rows only, unless the scale or the colours changed. */
	#paint(): void {
		const { run, metric, dark } = this.#subject;
		// A metric that this run was not watched with has nothing to fit a scale to, and nothing to draw.
		if (run === null || metric === null || run.rows.values(metric.id) === undefined) {
			this.#backing = null;
			this.#painted = 0;
			if (this.#range !== null) this.events.onRange(null, SEQUENTIAL);
			this.#range = null;
			return;
		}
		this.#fit ??= new ScaleFit(metric);
		const range = this.#fit.update(run.rows);
		const table = tableOf(metric, dark);
		const { changes } = run.rows;
		if (this.#backing === null || range !== this.#range) {
			this.#backing = new Backing(run.rows.layers, makeTile);
			this.#backing.paint(run.rows, { metric, range, table }, 0, run.rows.columns);
			this.#range = range;
			this.events.onRange(range, table);
		} else {
			for (const { start, end } of changes.slice(this.#painted)) {
				this.#backing.paint(run.rows, { metric, range, table }, start, end);
			}
		}
		this.#painted = changes.length;
	}

	#drawTop(): void {
		const { run } = this.#subject;
		const g = this.#geometry;
		const context = this.elements.overlay.getContext("2d");
		if (g === null || context === null || this.#ink === null) return;
		const cursor = this.cursor.cursor;
		const pointed = run !== null && cursor?.run === run.id ? cursor : null;
		const boundaries = run?.rows.boundaries() ?? [];
		drawOverlay(context, g, this.#scroll(g), run?.length ?? 0, boundaries, pointed, this.#ink);
	}

	#describe(): void {
		const { run, metric } = this.#subject;
		const { dataset } = this.elements.host;
		dataset.rows = String(run?.rows.received ?? 0);
		dataset.columns = String(this.#backing === null ? 0 : (run?.rows.columns ?? 0));
		dataset.tokens = String(run?.length ?? 0);
		dataset.layers = String(run?.rows.layers ?? 0);
		const boundaries = run?.rows.boundaries() ?? [];
		dataset.revisions = boundaries.map(({ rev, position }) => `${rev}@${position}`).join(",");
		dataset.metric = metric?.id ?? "";
		if (this.#geometry !== null) {
			const { from, to } = visibleColumns(this.#geometry, this.#scroll(this.#geometry), run?.length ?? 0);
			dataset.visible = `${from}-${to}`;
		}
	}
}

export function tableOf(metric: MetricInfo, dark: boolean): Uint8ClampedArray {
	if (metric.scale.kind === "sequential") return SEQUENTIAL;
	return dark ? DIVERGING.dark : DIVERGING.light;
}

function makeTile(width: number, height: number): Tile {
	const canvas = document.createElement("canvas");
	canvas.width = width;
	canvas.height = height;
	const context = canvas.getContext("2d");
	if (context === null) throw new Error("This browser gives no 2D canvas, so the heatmap cannot be drawn.");
	return { context, image: canvas };
}
