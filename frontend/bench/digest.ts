import { CHUNK, type RowStore } from "../src/store/rows";

/** A digest of all numbers of a run (FNV-1a over its half floats), to see that they are still the same; null while they are on the shelf. */
export function digest(rows: RowStore): number | null {
	if (rows.state === "shelved") return null;
	let hash = 0x811c9dc5;
	for (const metric of rows.metrics) {
		for (let index = 0; index * CHUNK < rows.columns; index++) {
			for (const code of rows.chunk(metric, index) ?? []) hash = Math.imul(hash ^ code, 0x01000193);
		}
	}
	return hash >>> 0;
}
