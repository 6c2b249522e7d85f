// The map at one pixel per cell, kept in tiles of off-screen canvas. A number is turned into a colour once,
// when its row arrives; a frame only blits the visible part of the tiles, enlarged without smoothing. That
// is what keeps a frame's price independent of how long the reply is.
//
// A column without a row stays transparent, and so does a number that is not finite: what lies under it
// (hatching, neutral ground) shows that nothing is known there.
import type { MetricInfo } from "../protocol/types.gen";
import type { RowStore } from "../store/rows";
import { TABLE_SIZE } from "./colour";
import { type Geometry, visibleColumns } from "./geometry";
import { place, type Range } from "./scale";

export const TILE_COLUMNS = 512;

/** What the backing needs of a 2D context; a canvas has it, and so has a test's fake. */
export interface TileContext {
	createImageData(width: number, height: number): ImageData;
	putImageData(image: ImageData, x: number, y: number): void;
	clearRect(x: number, y: number, width: number, height: number): void;
}

export interface Tile {
	context: TileContext;
	image: CanvasImageSource;
}

export type MakeTile = (width: number, height: number) => Tile;

export interface Paint {
	metric: MetricInfo;
	range: Range;
	table: Uint8ClampedArray;
}

export class Backing {
	#tiles: Tile[] = [];

	constructor(
		private readonly layers: number,
		private readonly makeTile: MakeTile,
	) {}

	/** Colour columns [from, to). */
	paint(rows: RowStore, paint: Paint, from: number, to: number): void {
		for (let start = from; start < to; ) {
			const index = Math.floor(start / TILE_COLUMNS);
			const end = Math.min(to, (index + 1) * TILE_COLUMNS);
			while (this.#tiles.length <= index) this.#tiles.push(this.makeTile(TILE_COLUMNS, this.layers));
			const tile = this.#tiles[index]!;
			const image = tile.context.createImageData(end - start, this.layers);
			fill(image.data, rows, paint, start, end, this.layers);
			tile.context.putImageData(image, start - index * TILE_COLUMNS, 0);
			start = end;
		}
	}

	/** Blit what is visible. `context` must not smooth images. */
	blit(
		context: Pick<CanvasRenderingContext2D, "drawImage">,
		g: Geometry,
		scroll: number,
		columns: number,
	): void {
		const { from, to } = visibleColumns(g, scroll, columns);
		for (let start = from; start < to; ) {
			const index = Math.floor(start / TILE_COLUMNS);
			const end = Math.min(to, (index + 1) * TILE_COLUMNS);
			const tile = this.#tiles[index];
			if (tile === undefined) return;
			const width = end - start;
			context.drawImage(
				tile.image,
				start - index * TILE_COLUMNS,
				0,
				width,
				this.layers,
				g.left + start * g.cellWidth - scroll,
				g.top,
				width * g.cellWidth,
				this.layers * g.cellHeight,
			);
			start = end;
		}
	}
}

function fill(
	pixels: Uint8ClampedArray,
	rows: RowStore,
	{ metric, range, table }: Paint,
	from: number,
	to: number,
	layers: number,
): void {
	const values = rows.values(metric.id);
	if (values === undefined) return;
	const width = to - from;
	for (let position = from; position < to; position++) {
		if (!rows.has(position)) continue;
		for (let layer = 0; layer < layers; layer++) {
			const sent = values[position * layers + layer]!;
			if (!Number.isFinite(sent)) continue;
			const entry = Math.round(place(metric, range, sent) * (TABLE_SIZE - 1)) * 4;
			const pixel = ((layers - 1 - layer) * width + position - from) * 4;
			pixels[pixel] = table[entry]!;
			pixels[pixel + 1] = table[entry + 1]!;
			pixels[pixel + 2] = table[entry + 2]!;
			pixels[pixel + 3] = 255;
		}
	}
}
