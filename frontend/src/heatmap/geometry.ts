// Where things are. Two spaces:
//
//   view    device pixels of the canvas, origin top left; every length here is a whole number of them, so
//           that each cell has sharp edges on any screen
//   content device pixels of the endless strip of columns, x = position * cellWidth; the view shows
//           [scroll, scroll + plotWidth) of it
//
// Layer 0 is at the bottom. All functions are pure.

export interface Geometry {
	width: number;
	height: number;
	/** Left edge of the plot in view: the layer labels stand before it. */
	left: number;
	top: number;
	plotWidth: number;
	plotHeight: number;
	cellWidth: number;
	cellHeight: number;
	layers: number;
	/** Device pixels per CSS pixel. */
	ratio: number;
}

export interface Cell {
	position: number;
	layer: number;
}

/** CSS pixels. */
export const GUTTER = 30;
export const BAND = 18;
/** Room under the plot for numbers, or for token texts when columns are wide enough to read them. */
export const AXIS = 18;
export const TEXT_AXIS = 62;
export const COLUMN_WIDTHS = [2, 4, 6, 9, 13, 18, 26] as const;
export const TEXT_WIDTH = 13;
/** Index of the width that columns have at first. */
export const FIRST_ZOOM = COLUMN_WIDTHS.indexOf(13);

export interface Size {
	/** Of the canvas in device pixels. */
	width: number;
	height: number;
	ratio: number;
}

export function layout(size: Size, layers: number, columnWidth: number): Geometry {
	const px = (css: number) => Math.round(css * size.ratio);
	const left = px(GUTTER);
	const top = px(BAND);
	const axis = px(columnWidth >= TEXT_WIDTH ? TEXT_AXIS : AXIS);
	const cellHeight = Math.max(1, Math.floor((size.height - top - axis) / Math.max(1, layers)));
	return {
		width: size.width,
		height: size.height,
		left,
		top,
		plotWidth: Math.max(1, size.width - left),
		plotHeight: cellHeight * layers,
		cellWidth: Math.max(1, px(columnWidth)),
		cellHeight,
		layers,
		ratio: size.ratio,
	};
}

/** Left edge of a column in view. */
export function columnX(g: Geometry, scroll: number, position: number): number {
	return g.left + position * g.cellWidth - scroll;
}

/** Top edge of a layer's cells in view. */
export function layerY(g: Geometry, layer: number): number {
	return g.top + (g.layers - 1 - layer) * g.cellHeight;
}

/** Positions [from, to) of which at least one pixel is in view. */
export function visibleColumns(g: Geometry, scroll: number, tokens: number): { from: number; to: number } {
	const from = Math.max(0, Math.floor(scroll / g.cellWidth));
	const to = Math.min(tokens, Math.ceil((scroll + g.plotWidth) / g.cellWidth));
	return { from, to: Math.max(from, to) };
}

/** The cell under a point of the view, or null outside the cells of `tokens` columns. */
export function cellAt(g: Geometry, scroll: number, tokens: number, x: number, y: number): Cell | null {
	if (x < g.left || x >= g.width || y < g.top || y >= g.top + g.plotHeight) return null;
	const position = Math.floor((x - g.left + scroll) / g.cellWidth);
	const layer = g.layers - 1 - Math.floor((y - g.top) / g.cellHeight);
	return position >= 0 && position < tokens ? { position, layer } : null;
}

/** Scroll at which the last column touches the right edge; a little air stays after it. */
export function tailScroll(g: Geometry, tokens: number): number {
	return Math.max(0, contentWidth(g, tokens) - g.plotWidth);
}

export function contentWidth(g: Geometry, tokens: number): number {
	return tokens * g.cellWidth + Math.round(12 * g.ratio);
}

/** Scroll that is nearest to `scroll` and has the column in view, with some columns around it. */
export function scrollTo(g: Geometry, scroll: number, position: number, tokens: number): number {
	const margin = Math.min(3 * g.cellWidth, Math.floor(g.plotWidth / 4));
	const start = position * g.cellWidth;
	let next = scroll;
	if (start - margin < next) next = start - margin;
	if (start + g.cellWidth + margin > next + g.plotWidth) next = start + g.cellWidth + margin - g.plotWidth;
	return Math.min(tailScroll(g, tokens), Math.max(0, next));
}

/** The layers that the axis names, the last always among them, so that labels of `labelHeight` pixels do not touch. */
export function namedLayers(g: Geometry, labelHeight: number): number[] {
	const [step, last] = [layerStep(g, labelHeight), g.layers - 1];
	const named: number[] = [];
	for (let layer = 0; (last - layer) * g.cellHeight >= labelHeight; layer += step) named.push(layer);
	return last < 0 ? named : [...named, last];
}

/** Every how many layers one is named. */
function layerStep(g: Geometry, labelHeight: number): number {
	for (const step of [1, 2, 5, 10, 20, 50, 100]) if (step * g.cellHeight >= labelHeight) return step;
	return g.layers;
}

/** A cell as something beside it is placed by it, in CSS pixels. */
export interface Anchor {
	x: number;
	y: number;
	width: number;
	height: number;
}

const GAP = 8;

/**
 * Top left corner of a box beside a cell: to its right, else to its left, else above or below it; always
 * inside `bounds`, which are given in the same coordinates as the anchor.
 */
export function beside(
	anchor: Anchor,
	box: { width: number; height: number },
	bounds: { left: number; top: number; right: number; bottom: number },
): { left: number; top: number } {
	// The start wins where the box is larger than its bounds: a text is read from there.
	const within = (value: number, from: number, to: number) => Math.max(from, Math.min(value, to));
	const [mostLeft, mostTop] = [bounds.right - box.width, bounds.bottom - box.height];
	const top = within(anchor.y - GAP, bounds.top, mostTop);
	const right = anchor.x + anchor.width + GAP;
	if (right <= mostLeft) return { left: right, top };
	const before = anchor.x - GAP - box.width;
	if (before >= bounds.left) return { left: before, top };
	const above = anchor.y - GAP - box.height;
	const free = above >= bounds.top ? above : anchor.y + anchor.height + GAP;
	return { left: within(right, bounds.left, mostLeft), top: within(free, bounds.top, mostTop) };
}
