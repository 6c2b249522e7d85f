// What a map draws: one number per position and layer, whatever they come from. A map, its scale and its legend know
// fields only, so that numbers of a run, and what is made of them, are drawn alike.
import { HALF_VALUES } from "../protocol/fp16";
import { CHUNK, type Change } from "./rows";

export interface Field {
	readonly layers: number;
	/** One past the last position that may have a number. */
	readonly columns: number;
	/** No number has come, nor can any be drawn. */
	readonly empty: boolean;
	/** Its numbers lie on the shelf: until they are back no chunk can be read, and there is nothing to draw. */
	readonly shelved: boolean;
	/** Take in what that of which it is made has had since. Called before anything is drawn of it. */
	sync(): void;
	/** What has come, oldest first; it only ever grows. As of the last `sync`. */
	readonly changes: readonly Change[];
	/** The first position after 0 that has a number in any layer, or null. */
	readonly first: number | null;
	/** Numbers at positions [CHUNK * index, CHUNK * (index + 1)), [CHUNK, layers] as half floats; NaN for none. */
	chunk(index: number): Uint16Array | undefined;
}

/** The number of a field at a position and layer, as it was sent; NaN where there is none. */
export function valueAt(field: Field, position: number, layer: number): number {
	const code = field.chunk(Math.floor(position / CHUNK))?.[(position % CHUNK) * field.layers + layer];
	return code === undefined ? Number.NaN : HALF_VALUES[code]!;
}
