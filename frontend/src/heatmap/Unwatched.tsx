import type { MetricInfo } from "../protocol/types.gen";
import { FAMILY_WORDS, type Watch } from "../session/watch";
import { withFamily } from "./WatchPanel";

/** Why the map is empty for this metric, and how the next reply will have it. */
export function Unwatched(props: {
	metric: MetricInfo;
	/** Whether a next reply can be watched with anything. */
	next: boolean;
	watch: Watch;
	onWatch(watch: Watch): void;
}) {
	const { metric, next, watch, onWatch } = props;
	const family = FAMILY_WORDS[metric.family].short;
	const off = next && metric.error === null && !watch.families[metric.family];
	return (
		<div className="heatmap-empty">
			<div className="heatmap-note" data-testid="heatmap-unwatched">
				<p role="status">
					This reply was not watched with {metric.label}.
					{off && ` It will be with the next one: switch on ${family} under Watch.`}
					{next && !off && metric.error === null && " The next one will be."}
				</p>
				{off && (
					<button
						type="button"
						className="primary"
						data-testid="watch-next"
						onClick={() => onWatch(withFamily(watch, metric.family, true))}
					>
						Switch on {family}
					</button>
				)}
			</div>
		</div>
	);
}
