// The interactive canvas: the cursor's column and cell, and the lines where a new revision came into force.
// It is small work and is redrawn whole, so the static canvas is never touched by a moving pointer.
import type { Ink } from "./draw";
import { columnX, type Geometry, layerY, visibleColumns } from "./geometry";

/** Where a new revision came into force. */
export interface Mark {
	position: number;
	/** What it changed, in words. */
	text: string;
}

export interface Pointed {
	position: number;
	layer: number | null;
}

export function drawOverlay(
	context: CanvasRenderingContext2D,
	g: Geometry,
	scroll: number,
	tokens: number,
	boundaries: readonly Mark[],
	pointed: Pointed | null,
	ink: Ink,
): void {
	context.clearRect(0, 0, g.width, g.height);
	context.save();
	context.beginPath();
	context.rect(g.left, 0, g.plotWidth, g.height);
	context.clip();
	drawBoundaries(context, g, scroll, tokens, boundaries, ink);
	if (pointed !== null && pointed.position < tokens) drawPointed(context, g, scroll, pointed, ink);
	context.restore();
}

function drawBoundaries(
	context: CanvasRenderingContext2D,
	g: Geometry,
	scroll: number,
	tokens: number,
	boundaries: readonly Mark[],
	ink: Ink,
): void {
	const px = g.ratio;
	const { from, to } = visibleColumns(g, scroll, tokens);
	const halo = Math.max(3, Math.round(4 * px));
	const line = Math.max(1, Math.round(2 * px));
	context.font = `600 ${Math.round(10.5 * px)}px ${ink.font}`;
	context.textBaseline = "middle";
	context.textAlign = "left";
	const height = Math.round(15 * px);
	for (let index = 0; index < boundaries.length; index++) {
		const { text, position } = boundaries[index]!;
		if (position < from - 8 || position >= to) continue;
		const x = columnX(g, scroll, position);
		context.fillStyle = ink.panel;
		context.fillRect(x - Math.floor(halo / 2), g.top, halo, g.plotHeight);
		context.fillStyle = ink.signal;
		context.fillRect(
			x - Math.floor(line / 2),
			g.top - Math.round(2 * px),
			line,
			g.plotHeight + Math.round(4 * px),
		);
		const width = Math.ceil(context.measureText(text).width) + Math.round(8 * px);
		// A dragged slider makes a line every other token; a label that the next line would cut is left out.
		const next = boundaries[index + 1];
		if (next !== undefined && columnX(g, scroll, next.position) < x + width) continue;
		context.fillRect(x, g.top, width, height);
		context.fillStyle = ink.panel;
		context.fillText(text, x + Math.round(4 * px), g.top + height / 2 + Math.round(px / 2));
	}
}

function drawPointed(
	context: CanvasRenderingContext2D,
	g: Geometry,
	scroll: number,
	{ position, layer }: Pointed,
	ink: Ink,
): void {
	const px = Math.max(1, Math.round(g.ratio));
	const x = columnX(g, scroll, position);
	frame(context, x - px, g.top - px, g.cellWidth + 2 * px, g.plotHeight + 2 * px, px, ink);
	if (layer === null) return;
	const y = layerY(g, layer);
	context.fillStyle = ink.text;
	context.fillRect(g.left - 4 * px, y, 4 * px, g.cellHeight);
	frame(context, x - px, y - px, g.cellWidth + 2 * px, g.cellHeight + 2 * px, 2 * px, ink);
}

/** A dark and a light outline, one inside the other: visible on every colour of the scale. */
function frame(
	context: CanvasRenderingContext2D,
	x: number,
	y: number,
	width: number,
	height: number,
	thick: number,
	ink: Ink,
): void {
	const box = (inset: number, colour: string) => {
		context.fillStyle = colour;
		const [l, t, w, h] = [x - inset, y - inset, width + 2 * inset, height + 2 * inset];
		context.fillRect(l, t, w, thick);
		context.fillRect(l, t + h - thick, w, thick);
		context.fillRect(l, t, thick, h);
		context.fillRect(l + w - thick, t, thick, h);
	};
	box(thick, ink.panel);
	box(0, ink.text);
}
