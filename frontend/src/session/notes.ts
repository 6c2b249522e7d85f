// The sentences that the page says to a person on its own account, each until it is put away or a newer one of its
// kind takes its place.
import type { Signal } from "../store/signal";

/** What went wrong, and the part of the page that it belongs to. */
export interface Notice {
	place: "page" | "composer" | "steering";
	message: string;
}

export class Notes {
	notice: Notice | null = null;
	/** What a person should know about the server that answers now. */
	moved: string | null = null;
	/** What came of a link with sliders, or that some are gone. */
	sliders: string | null = null;

	constructor(private readonly changed: Signal) {}

	notify(place: Notice["place"], message: string): void {
		this.notice = { place, message };
		this.changed.changed();
	}

	dismiss(which: "notice" | "moved" | "sliders"): void {
		this[which] = null;
		this.changed.changed();
	}
}
