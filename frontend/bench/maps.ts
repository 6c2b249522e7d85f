// Three maps of one run side by side, each of another metric: what comparing runs will show. Only the maps, by the
// page's own view.
import { HeatmapView, type ViewElements, type ViewSubject } from "../src/heatmap/view";
import type { MetricInfo } from "../src/protocol/types.gen";
import type { Session } from "../src/session/session";
import type { Range } from "../src/view/view";

export class ThreeMaps {
	readonly #views: HeatmapView[];
	private readonly subjects: ViewSubject[] = [];

	constructor(
		private readonly host: HTMLElement,
		session: Session,
		metrics: readonly MetricInfo[],
	) {
		host.style.cssText =
			"position: fixed; inset: auto 0 0 0; height: 45vh; display: grid; grid-template-columns: repeat(3, 1fr); z-index: 9";
		this.#views = metrics.slice(0, 3).map((metric) => {
			const view = new HeatmapView(elements(host), session.cursor, {
				onDrawn: () => {},
				onFollowing: () => {},
			});
			const layers = session.server.model?.layers ?? 0;
			const subject = { strip: session.strip, metric, layers, columnWidth: 4, dark: false, range: null };
			this.subjects.push(subject);
			view.show(subject);
			return view;
		});
	}

	/** Other ends of the scale, for all of them. */
	setRange(range: Range): void {
		this.#views.forEach((view, index) => {
			view.show({ ...this.subjects[index]!, range });
		});
	}

	dispose(): void {
		for (const view of this.#views) view.dispose();
		this.host.replaceChildren();
		this.host.style.cssText = "";
	}
}

function elements(parent: HTMLElement): ViewElements {
	const element = <T extends keyof HTMLElementTagNameMap>(
		name: T,
		className: string,
		into: HTMLElement,
	): HTMLElementTagNameMap[T] => {
		const made = document.createElement(name);
		made.className = className;
		into.append(made);
		return made;
	};
	const host = element("div", "heatmap", parent);
	const scroller = element("div", "heatmap-scroller", host);
	const track = element("div", "heatmap-track", scroller);
	const stage = element("div", "heatmap-stage", track);
	const cells = element("canvas", "", stage);
	const overlay = element("canvas", "heatmap-overlay", stage);
	return { host, scroller, track, cells, overlay };
}
