// Token texts under the columns, cut to the room that they have. Measuring a text costs more than drawing it, and
// the same few words stand under the map in every frame, so each is measured once for as long as the room stays.

const ELLIPSIS = "\u2026";
/** More characters than ever fit. */
const MOST_CHARACTERS = 12;
/** Texts that are remembered; more than a long reply has different ones. */
const MOST_TEXTS = 4096;

/** A token's text as it can be shown on one line: white space made visible. */
export function readable(text: string): string {
	return text.replaceAll("\n", "\u23ce").replaceAll("\t", "\u21e5").replaceAll(" ", "\u00b7");
}

export class Labels {
	#fitted = new Map<string, string>();
	#font = "";
	#room = 0;

	/** A text in the font of the context, at most `room` device pixels long. */
	fit(context: Pick<CanvasRenderingContext2D, "font" | "measureText">, text: string, room: number): string {
		if (context.font !== this.#font || room !== this.#room || this.#fitted.size >= MOST_TEXTS) {
			this.#fitted.clear();
			this.#font = context.font;
			this.#room = room;
		}
		let label = this.#fitted.get(text);
		if (label === undefined) {
			label = cut(context, readable(text), room);
			this.#fitted.set(text, label);
		}
		return label;
	}
}

function cut(context: Pick<CanvasRenderingContext2D, "measureText">, text: string, room: number): string {
	if (context.measureText(text).width <= room) return text;
	let end = Math.min(text.length, MOST_CHARACTERS);
	while (end > 1 && context.measureText(`${text.slice(0, end)}${ELLIPSIS}`).width > room) end--;
	return `${text.slice(0, end)}${ELLIPSIS}`;
}
