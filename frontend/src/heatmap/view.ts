// The edge between the pure heatmap and the page. At most once per animation frame it arranges the stage, has the
// painter colour what is new, and draws what is in view; the cursor's canvas is drawn by itself when only that moved.
import type { MetricInfo } from "../protocol/types.gen";
import type { Cursor, CursorStore } from "../session/cursor";
import { type LabelOf, revisionText } from "../store/revisionText";
import { pageBatch, Signal } from "../store/signal";
import { type Strip, StripField } from "../store/strip";
import type { Backing, Tile } from "./backing";
import { drawStatic, type Ink } from "./draw";
import { type Anchor, type Cell, cellAt, columnX, type Geometry, layerY, visibleColumns } from "./geometry";
import { readInk } from "./ink";
import { Labels } from "./labels";
import { drawOverlay } from "./overlay";
import { type Drawn, Painter } from "./painter";
import type { Range } from "./scale";
import { Stage, type StageElements } from "./stage";

export interface ViewElements extends StageElements {
	/** Carries the data attributes that say what is drawn. */
	host: HTMLElement;
}

export interface ViewEvents {
	onDrawn(drawn: Drawn | null): void;
	onFollowing(following: boolean): void;
}

export interface ViewSubject {
	strip: Strip | null;
	metric: MetricInfo | null;
	/** Rows of the plot before the first row has come. */
	layers: number;
	columnWidth: number;
	dark: boolean;
	/** What the ends of the scale are, in sent numbers; null where the numbers decide. */
	range?: Range | null;
}

export class HeatmapView {
	/** The cells moved in the view: something that is placed by `locate` must be placed again. */
	readonly moved = new Signal();
	#subject: ViewSubject = { strip: null, metric: null, layers: 0, columnWidth: 13, dark: false };
	#field: StripField | null = null;
	#ink: Ink | null = null;
	readonly #labels = new Labels();
	readonly #stage: Stage;
	readonly #painter: Painter;
	#unsubscribeRun: (() => void) | null = null;
	readonly #unsubscribeCursor: () => void;
	readonly #draw = () => this.#drawAll();
	readonly #drawLater = () => pageBatch.add(this.#draw);

	constructor(
		private readonly elements: ViewElements,
		private readonly cursor: CursorStore,
		events: ViewEvents,
		private readonly labelOf: LabelOf = (id) => id,
	) {
		this.#stage = new Stage(elements, events.onFollowing, this.#drawLater);
		this.#painter = new Painter(events.onDrawn, makeTile);
		this.#unsubscribeCursor = cursor.changed.subscribe(() => this.#drawTop());
	}

	dispose(): void {
		this.#stage.dispose();
		this.#unsubscribeCursor();
		this.#unsubscribeRun?.();
	}

	show(subject: ViewSubject): void {
		const before = this.#subject;
		this.#subject = subject;
		const { strip, metric, dark, range = null } = subject;
		if (dark !== before.dark) this.#ink = null;
		if (strip !== before.strip || metric?.id !== before.metric?.id) {
			this.#field = strip === null || metric === null ? null : new StripField(strip, metric.id);
		}
		const field = this.#field;
		this.#painter.show(field === null || metric === null ? null : { field, metric, range, dark });
		if (strip !== before.strip) {
			this.#unsubscribeRun?.();
			this.#unsubscribeRun = strip?.subscribe(this.#draw) ?? null;
			if (strip?.run !== before.strip?.run) this.#stage.follow();
		}
		this.#drawLater();
	}

	jumpToLatest(): void {
		this.#stage.follow();
	}

	/** The cell under a point in CSS pixels from the top left of the canvas. */
	hit(x: number, y: number): Cell | null {
		const { geometry: g, scroll } = this.#stage;
		if (g === null || this.#subject.strip === null) return null;
		return cellAt(g, scroll, this.#columns, x * g.ratio, y * g.ratio);
	}

	/** Where a cursor's cell is, in CSS pixels from the top left of the canvas; null out of view. */
	locate(cursor: Cursor): Anchor | null {
		const { geometry: g, scroll } = this.#stage;
		if (g === null || this.#subject.strip === null) return null;
		const x = columnX(g, scroll, cursor.position);
		if (x + g.cellWidth <= g.left || x >= g.width) return null;
		const y = layerY(g, cursor.layer ?? g.layers - 1);
		const [width, height] = [g.cellWidth / g.ratio, g.cellHeight / g.ratio];
		return { x: x / g.ratio, y: y / g.ratio, width, height };
	}

	/** Whole columns that fit in the view: the step of a page key. */
	pageColumns(): number {
		const { geometry: g } = this.#stage;
		return g === null ? 10 : Math.max(1, Math.floor(g.plotWidth / g.cellWidth) - 2);
	}

	reveal(position: number): void {
		if (this.#subject.strip !== null) this.#stage.reveal(position, this.#columns);
	}

	get #columns(): number {
		return this.#subject.strip?.run.tokens.length ?? 0;
	}

	#drawAll(): void {
		const { strip, columnWidth, layers } = this.#subject;
		const g = this.#stage.arrange(this.#columns, strip?.layers || layers, columnWidth);
		this.#ink ??= readInk(this.elements.host);
		const context = this.elements.cells.getContext("2d");
		if (context === null) return;
		const backing = this.#painter.update();
		drawStatic(context, g, this.#stage.scroll, strip, backing, this.#ink, this.#labels);
		this.#drawTop();
		this.#describe(g, backing);
		this.moved.changed();
	}

	#drawTop(): void {
		const { strip } = this.#subject;
		const { geometry: g, scroll } = this.#stage;
		const context = this.elements.overlay.getContext("2d");
		if (g === null || context === null || this.#ink === null) return;
		const { cursor } = this.cursor;
		const pointed = strip !== null && cursor?.run === strip.run.id ? cursor : null;
		const marks = (strip?.boundaries() ?? []).map(({ run, rev, position }) => ({
			position,
			text: revisionText(run, rev, this.labelOf),
		}));
		drawOverlay(context, g, scroll, this.#columns, marks, pointed, this.#ink);
	}

	#describe(g: Geometry, backing: Backing | null): void {
		const { strip, metric } = this.#subject;
		const { dataset } = this.elements.host;
		const { from, to } = visibleColumns(g, this.#stage.scroll, this.#columns);
		dataset.rows = String(strip?.received ?? 0);
		dataset.columns = String(backing === null ? 0 : (strip?.columns ?? 0));
		dataset.tokens = String(this.#columns);
		dataset.layers = String(strip?.layers ?? 0);
		dataset.revisions = (strip?.boundaries() ?? []).map(({ rev, position }) => `${rev}@${position}`).join();
		dataset.metric = metric?.id ?? "";
		dataset.visible = `${from}-${to}`;
	}
}

function makeTile(width: number, height: number): Tile {
	const canvas = document.createElement("canvas");
	canvas.width = width;
	canvas.height = height;
	const context = canvas.getContext("2d");
	if (context === null) throw new Error("This browser gives no 2D canvas, so the heatmap cannot be drawn.");
	return { context, image: canvas };
}
