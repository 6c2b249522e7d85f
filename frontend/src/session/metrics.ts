// Which metrics a map can show: those that the server lists, and those that the shown run computes by its own code
// (`steersight.live`). What a person picked stays picked while another run is on the map that has no such metric.
import type { MetricInfo } from "../protocol/types.gen";
import type { Run } from "../store/run";

/** Whether it is a metric that runs compute by their own code, by its id. */
export function isLive(metric: string | null): boolean {
	return metric?.startsWith("live:") === true;
}

/** The first that works, or the first. */
export function usable(metrics: readonly MetricInfo[]): MetricInfo | undefined {
	return metrics.find(({ error }) => error === null) ?? metrics[0];
}

/** What can be picked while a run is shown. */
export function offered(metrics: readonly MetricInfo[], shown: Run | null): readonly MetricInfo[] {
	return shown === null || shown.live.length === 0 ? metrics : [...metrics, ...shown.live];
}

/** What the map shows: the one that was picked, or another where the shown run's own code computes no such. */
export function mapped(offer: readonly MetricInfo[], picked: string | null): MetricInfo | null {
	return offer.find(({ id }) => id === picked) ?? (isLive(picked) ? (usable(offer) ?? null) : null);
}
