// The one place both the text and the heatmap point at. Whoever is hovered sets it; both light up.
import { type FrameBatch, pageBatch, Signal } from "../store/signal";

export interface Cursor {
	/** The page's id of the run. */
	run: string;
	position: number;
	/** Null when a whole column is meant, as from a token in the text. */
	layer: number | null;
	/** Keys move the cursor on purpose, so it stays and is read aloud; a pointer's goes with the pointer. */
	by: "pointer" | "keys" | "text";
}

export class CursorStore {
	readonly changed: Signal;
	#cursor: Cursor | null = null;

	constructor(batch: FrameBatch = pageBatch) {
		this.changed = new Signal(batch);
	}

	get cursor(): Cursor | null {
		return this.#cursor;
	}

	set(cursor: Cursor | null): void {
		const now = this.#cursor;
		if (now === cursor) return;
		if (
			now !== null &&
			cursor !== null &&
			now.run === cursor.run &&
			now.position === cursor.position &&
			now.layer === cursor.layer &&
			now.by === cursor.by
		) {
			return;
		}
		this.#cursor = cursor;
		this.changed.changed();
	}
}
