// The map at one pixel per cell, kept in tiles of off-screen canvas. A number is turned into a colour when its tile is
// in view: what came, or what has another colour than before, is only noted until then. A frame blits the visible part
// of the tiles, enlarged without smoothing. That is what keeps a frame's price independent of how long the reply is,
// also of one that changes what all colours mean.
//
// There are only 65,536 half floats, so colours are looked up by the numbers as they were sent (`Colours`). A column
// without a row stays transparent, and so does a number that is not finite: what lies under it (hatching, neutral
// ground) shows that nothing is known there.
import { HALF_VALUES, isFiniteCode } from "../protocol/fp16";
import type { MetricInfo } from "../protocol/types.gen";
import type { Field } from "../store/field";
import { CHUNK } from "../store/rows";
import { TABLE_SIZE } from "./colour";
import { type Geometry, visibleColumns } from "./geometry";
import { legendRange, type Range } from "./scale";

/** A tile holds a chunk of the field. */
export const TILE_COLUMNS = CHUNK;

/** What the backing needs of a 2D context; a canvas has it, and so has a test's fake. */
export interface TileContext {
	createImageData(width: number, height: number): ImageData;
	putImageData(
		image: ImageData,
		x: number,
		y: number,
		dirtyX: number,
		dirtyY: number,
		dirtyWidth: number,
		dirtyHeight: number,
	): void;
}

export interface Tile {
	context: TileContext;
	image: CanvasImageSource;
}

export type MakeTile = (width: number, height: number) => Tile;

/** For each half float its pixel, four bytes red, green, blue and opacity; 0 where it is no number. */
export type Colours = Uint32Array;

/** The colours of a metric on a scale, of a table of colours from its low end to its high end. */
export function coloursOf(metric: MetricInfo, range: Range, table: Uint8ClampedArray): Colours {
	const pixels = new Uint32Array(table.buffer, table.byteOffset, TABLE_SIZE);
	const { lo, hi } = legendRange(metric, range);
	const colours = new Uint32Array(HALF_VALUES.length);
	for (let code = 0; code < colours.length; code++) {
		if (!isFiniteCode(code)) continue;
		const t = (HALF_VALUES[code]! - lo) / (hi - lo);
		colours[code] = pixels[Math.round(Math.min(1, Math.max(0, t)) * (TABLE_SIZE - 1))]!;
	}
	return colours;
}

interface Dirty extends Tile {
	/** Columns [from, to) of the tile have no colours yet, or other ones than they should. */
	from: number;
	to: number;
}

export class Backing {
	#tiles: Dirty[] = [];
	#image: ImageData | null = null;
	#colours: Colours = new Uint32Array(0);

	constructor(
		private readonly field: Field,
		private readonly makeTile: MakeTile,
	) {}

	/** All numbers have these colours from now on. */
	recolour(colours: Colours): void {
		this.#colours = colours;
		this.mark(0, this.field.columns);
	}

	/** Numbers at columns [from, to) are new, or are others than before. */
	mark(from: number, to: number): void {
		for (let start = from; start < to; ) {
			const index = Math.floor(start / TILE_COLUMNS);
			const first = index * TILE_COLUMNS;
			const end = Math.min(to, first + TILE_COLUMNS);
			while (this.#tiles.length <= index) {
				const tile = this.makeTile(TILE_COLUMNS, this.field.layers);
				this.#tiles.push({ ...tile, from: TILE_COLUMNS, to: 0 });
			}
			const tile = this.#tiles[index]!;
			tile.from = Math.min(tile.from, start - first);
			tile.to = Math.max(tile.to, end - first);
			start = end;
		}
	}

	/** Colour what is visible and has no right colours yet, and blit it. `context` must not smooth images. */
	blit(
		context: Pick<CanvasRenderingContext2D, "drawImage">,
		g: Geometry,
		scroll: number,
		columns: number,
	): void {
		const { layers } = this.field;
		if (this.field.shelved) return;
		const { from, to } = visibleColumns(g, scroll, columns);
		for (let start = from; start < to; ) {
			const index = Math.floor(start / TILE_COLUMNS);
			const end = Math.min(to, (index + 1) * TILE_COLUMNS);
			const tile = this.#tiles[index];
			if (tile === undefined) return;
			if (tile.from < tile.to) this.#colour(tile, index);
			const width = end - start;
			context.drawImage(
				tile.image,
				start - index * TILE_COLUMNS,
				0,
				width,
				layers,
				g.left + start * g.cellWidth - scroll,
				g.top,
				width * g.cellWidth,
				layers * g.cellHeight,
			);
			start = end;
		}
	}

	#colour(tile: Dirty, index: number): void {
		const { layers } = this.field;
		const { from, to } = tile;
		[tile.from, tile.to] = [TILE_COLUMNS, 0];
		const codes = this.field.chunk(index);
		if (codes === undefined) return;
		this.#image ??= tile.context.createImageData(TILE_COLUMNS, layers);
		const pixels = new Uint32Array(this.#image.data.buffer);
		const colours = this.#colours;
		for (let column = from; column < to; column++) {
			let pixel = (layers - 1) * TILE_COLUMNS + column;
			for (let at = column * layers; at < (column + 1) * layers; at++, pixel -= TILE_COLUMNS) {
				pixels[pixel] = colours[codes[at]!]!;
			}
		}
		tile.context.putImageData(this.#image, 0, 0, from, 0, to - from, layers);
	}
}
