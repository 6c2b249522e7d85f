// What a person chose among what the server offers, kept while the server has it: the metric on the map, the sliders,
// and sliders of a link, which wait until the server's vectors are known. Where something chosen goes, it is said.
import type { VectorInfo } from "../protocol/types.gen";
import { applyShared } from "../steering/link";
import { fromFragment, type Shared } from "../steering/share";
import type { Steering } from "../steering/steering";
import type { ViewStore } from "../view/view";
import { goneSentence, missed } from "./gone";
import { isLive, usable } from "./metrics";
import type { Notes } from "./notes";
import type { KnownServer } from "./server";

export class Offers {
	#shared: readonly Shared[] | null = null;

	constructor(
		private readonly server: KnownServer,
		private readonly steering: Steering,
		private readonly notes: Notes,
		private readonly view: ViewStore,
	) {}

	/** The metric on the map, by its id. */
	get metric(): string | null {
		return this.view.main.metric;
	}

	/** The server has said what it offers now; `before` are the vectors that it had until then. */
	known(before: readonly VectorInfo[]): void {
		const { metrics, vectors, ready } = this.server;
		const acts = (id: string) => this.steering.get(id) !== 0;
		const gone = missed(before, vectors, acts, this.metric);
		// What a run computes by its own code no server lists.
		if (!metrics.some(({ id }) => id === this.metric) && !isLive(this.metric)) {
			this.view.changeMain({ metric: usable(metrics)?.id ?? null });
		}
		if (!ready) return;
		this.steering.keepOnly(new Set(vectors.map(({ id }) => id)));
		const shown = metrics.find(({ id }) => id === this.metric);
		this.notes.sliders = goneSentence(gone, shown) ?? this.notes.sliders;
		this.#applyShared();
	}

	/** Take the sliders of a link: now, or as soon as the server's vectors are known. */
	openShared(text: string): void {
		this.#shared = fromFragment(text);
		this.notes.sliders =
			this.#shared === null ? "The sliders in this link cannot be read, so nothing was changed." : null;
		if (this.server.ready) this.#applyShared();
	}

	#applyShared(): void {
		const shared = this.#shared;
		if (shared === null) return;
		this.#shared = null;
		const { vectors, model } = this.server;
		this.notes.sliders = applyShared(shared, this.steering, vectors, model?.layers ?? 0);
	}
}
