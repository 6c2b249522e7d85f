// Where the map is drawn: two canvases of the same size in a scroller, and how far that is scrolled. The strip
// follows its tail until the person scrolls back, and again once they return to the end.
import { onDensity } from "./density";
import { contentWidth, type Geometry, layout, type Size, scrollTo, tailScroll } from "./geometry";

export interface StageElements {
	scroller: HTMLElement;
	/** As wide as all columns; gives the scroller its range. */
	track: HTMLElement;
	cells: HTMLCanvasElement;
	overlay: HTMLCanvasElement;
}

export class Stage {
	/** As of the last `arrange`; null before it. */
	geometry: Geometry | null = null;
	/** Device pixels of the strip to the left of the view, as of the last `arrange`. */
	scroll = 0;
	#size: Size = { width: 0, height: 0, ratio: 1 };
	#following = true;
	#disposers: (() => void)[] = [];

	/** `stale` is called when the map has to be drawn again because of its place on the screen. */
	constructor(
		private readonly elements: StageElements,
		private readonly onFollowing: (following: boolean) => void,
		private readonly stale: () => void,
	) {
		const { scroller } = elements;
		const resizes = new ResizeObserver(stale);
		resizes.observe(scroller);
		const onScroll = () => this.#onScroll();
		scroller.addEventListener("scroll", onScroll, { passive: true });
		this.#disposers.push(
			() => resizes.disconnect(),
			() => scroller.removeEventListener("scroll", onScroll),
			onDensity(stale),
		);
	}

	dispose(): void {
		for (const dispose of this.#disposers) dispose();
	}

	/** Fit canvases and track to the scroller and to so many columns, and go to the end while that is followed. */
	arrange(columns: number, layers: number, columnWidth: number): Geometry {
		const { scroller, track } = this.elements;
		this.#measure();
		const g = layout(this.#size, layers, columnWidth);
		this.geometry = g;
		track.style.width = `${(g.left + contentWidth(g, columns)) / g.ratio}px`;
		if (this.#following) scroller.scrollLeft = scroller.scrollWidth;
		this.scroll = Math.round(scroller.scrollLeft * g.ratio);
		return g;
	}

	/** Follow the tail from now on. */
	follow(): void {
		this.#follows(true);
		this.stale();
	}

	/** Scroll so that a column is in view. */
	reveal(position: number, columns: number): void {
		const g = this.geometry;
		if (g === null) return;
		const next = scrollTo(g, this.scroll, position, columns);
		if (next === this.scroll) return;
		this.#follows(next >= tailScroll(g, columns));
		this.elements.scroller.scrollLeft = next / g.ratio;
		this.stale();
	}

	#follows(following: boolean): void {
		if (following === this.#following) return;
		this.#following = following;
		this.onFollowing(following);
	}

	#onScroll(): void {
		const { scroller } = this.elements;
		const scroll = Math.round(scroller.scrollLeft * this.#size.ratio);
		// Where `arrange` put it: following the tail must not draw every frame twice.
		if (scroll === this.scroll) return;
		this.scroll = scroll;
		this.#follows(scroller.scrollWidth - scroller.clientWidth - scroller.scrollLeft <= 2);
		this.stale();
	}

	#measure(): void {
		const { scroller, cells, overlay } = this.elements;
		const ratio = devicePixelRatio || 1;
		const width = Math.round(scroller.clientWidth * ratio);
		const height = Math.round(scroller.clientHeight * ratio);
		if (width === this.#size.width && height === this.#size.height && ratio === this.#size.ratio) return;
		this.#size = { width, height, ratio };
		for (const canvas of [cells, overlay]) {
			canvas.width = width;
			canvas.height = height;
			// The CSS size follows from the device size, never the reverse, or cells would be resampled.
			canvas.style.width = `${width / ratio}px`;
			canvas.style.height = `${height / ratio}px`;
		}
	}
}
