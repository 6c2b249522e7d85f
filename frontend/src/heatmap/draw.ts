// The static canvas: ground, hatching where no row is known, cells, the band that names prompt and reply,
// and both axes. Pure functions of what they are given; text that would not fit is left out, not squeezed.
import type { Run } from "../store/run";
import type { Strip } from "../store/strip";
import type { Backing } from "./backing";
import { columnX, type Geometry, layerY, namedLayers, TEXT_WIDTH, visibleColumns } from "./geometry";
import type { Labels } from "./labels";

export interface Ink {
	ground: string;
	panel: string;
	text: string;
	muted: string;
	edge: string;
	signal: string;
	accent: string;
	hatch: CanvasPattern | string;
	/** Where a token was not computed, because the engine had it in its cache. */
	cached: CanvasPattern | string;
	font: string;
	mono: string;
}

export function drawStatic(
	context: CanvasRenderingContext2D,
	g: Geometry,
	scroll: number,
	strip: Strip | null,
	backing: Backing | null,
	ink: Ink,
	labels: Labels,
): void {
	context.clearRect(0, 0, g.width, g.height);
	context.imageSmoothingEnabled = false;
	const run = strip?.run ?? null;
	const tokens = run?.tokens.length ?? 0;
	if (strip !== null && run !== null && tokens > 0) {
		context.save();
		context.beginPath();
		context.rect(g.left, 0, g.plotWidth, g.height);
		context.clip();
		drawMissing(context, g, scroll, strip, ink);
		backing?.blit(context, g, scroll, strip.columns);
		drawBand(context, g, scroll, run, ink);
		drawTokens(context, g, scroll, run, ink, labels);
		context.restore();
	}
	drawLayers(context, g, ink);
}

/** Neutral ground under everything, hatched where a token has no row, dotted where it was not computed. */
export function drawMissing(
	context: Pick<CanvasRenderingContext2D, "fillRect" | "fillStyle">,
	g: Geometry,
	scroll: number,
	strip: Strip,
	ink: Pick<Ink, "ground" | "hatch" | "cached">,
): void {
	const { tokens, cached } = strip.run;
	const { from, to } = visibleColumns(g, scroll, tokens.length);
	context.fillStyle = ink.ground;
	context.fillRect(columnX(g, scroll, from), g.top, (to - from) * g.cellWidth, g.plotHeight);
	for (let position = from, end = from; position < to; position = end) {
		end = position + 1;
		if (strip.has(position)) continue;
		const unread = cached.has(position);
		while (end < to && !strip.has(end) && cached.has(end) === unread) end++;
		context.fillStyle = unread ? ink.cached : ink.hatch;
		context.fillRect(columnX(g, scroll, position), g.top, (end - position) * g.cellWidth, g.plotHeight);
	}
}

/** Above the cells: who wrote which columns, and the line between prompt and reply. */
function drawBand(context: CanvasRenderingContext2D, g: Geometry, scroll: number, run: Run, ink: Ink): void {
	const px = g.ratio;
	const split = run.tokens.promptLength;
	const bar = Math.max(2, Math.round(3 * px));
	const label = (name: string, start: number, end: number, colour: string) => {
		const x0 = Math.max(g.left, columnX(g, scroll, start));
		const x1 = Math.min(g.width, columnX(g, scroll, end));
		if (x1 <= x0) return;
		context.fillStyle = colour;
		context.fillRect(x0, g.top - bar - Math.round(px), x1 - x0, bar);
		context.font = `${Math.round(10.5 * px)}px ${ink.font}`;
		context.textBaseline = "alphabetic";
		context.textAlign = "left";
		if (context.measureText(name).width + 4 * px > x1 - x0) return;
		context.fillStyle = ink.muted;
		context.fillText(name, x0 + Math.round(2 * px), g.top - bar - Math.round(4 * px));
	};
	for (const { name, start, end } of run.tokens.parts())
		label(name, start, end, start < split || name === "thought" ? ink.edge : ink.accent);
	const x = columnX(g, scroll, split);
	if (split > 0 && x >= g.left && x <= g.width) {
		context.fillStyle = ink.panel;
		context.fillRect(x - Math.round(px), g.top, Math.max(2, Math.round(2 * px)), g.plotHeight);
		context.fillStyle = ink.text;
		context.fillRect(
			x - Math.round(px / 2),
			g.top - bar,
			Math.max(1, Math.round(px)),
			g.plotHeight + 2 * bar,
		);
	}
}

/** Under the cells: token texts where columns are wide enough, and a position number now and then. */
function drawTokens(
	context: CanvasRenderingContext2D,
	g: Geometry,
	scroll: number,
	{ tokens }: Run,
	ink: Ink,
	labels: Labels,
): void {
	const { from, to } = visibleColumns(g, scroll, tokens.length);
	const bottom = g.top + g.plotHeight;
	const px = g.ratio;
	const texts = g.cellWidth >= Math.round(TEXT_WIDTH * px);
	context.textBaseline = "middle";
	if (texts) {
		const room = g.height - bottom - Math.round(14 * px);
		context.font = `${Math.round(Math.min(11 * px, g.cellWidth - 2 * px))}px ${ink.mono}`;
		context.textAlign = "right";
		// Turned once for all: a column's x is then the second coordinate, and the first runs up the screen.
		context.save();
		context.rotate(-Math.PI / 2);
		const start = -(bottom + Math.round(4 * px));
		for (let position = from; position < to; position++) {
			context.fillStyle = position < tokens.promptLength ? ink.muted : ink.text;
			const label = labels.fit(context, tokens.textAt(position) ?? "", room);
			context.fillText(label, start, columnX(g, scroll, position) + g.cellWidth / 2);
		}
		context.restore();
	}
	context.font = `${Math.round(10 * px)}px ${ink.font}`;
	context.textAlign = "center";
	context.textBaseline = "bottom";
	context.fillStyle = ink.muted;
	const step = [5, 10, 20, 50, 100, 200, 500].find((n) => n * g.cellWidth >= 36 * px) ?? 1000;
	for (let position = Math.ceil(from / step) * step; position < to; position += step) {
		const x = columnX(g, scroll, position) + g.cellWidth / 2;
		if (x < g.left + 6 * px) continue;
		context.fillText(String(position), x, g.height - Math.round(px));
	}
}

function drawLayers(context: CanvasRenderingContext2D, g: Geometry, ink: Ink): void {
	const px = g.ratio;
	context.font = `${Math.round(10 * px)}px ${ink.font}`;
	context.textAlign = "right";
	context.textBaseline = "middle";
	context.fillStyle = ink.muted;
	for (const layer of namedLayers(g, 14 * px)) {
		context.fillText(String(layer), g.left - Math.round(6 * px), layerY(g, layer) + g.cellHeight / 2);
	}
}
