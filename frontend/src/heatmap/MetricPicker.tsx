// Which metric the map shows, by family. One that failed on the server can be seen and not chosen.
import type { MetricInfo } from "../protocol/types.gen";
import { byFamily, FAMILY_WORDS, isMapped } from "../session/watch";

export function MetricPicker(props: {
	metrics: readonly MetricInfo[];
	metric: MetricInfo | null;
	onPick(id: string): void;
}) {
	const { metrics, metric, onPick } = props;
	return (
		<label className="metric-picker" title={metric?.description ?? ""}>
			<span className="sr-only">Metric</span>
			<select
				data-testid="metric-picker"
				value={metric?.id ?? ""}
				disabled={metrics.length === 0}
				onChange={(event) => onPick(event.target.value)}
			>
				{metrics.length === 0 && <option value="">No metrics yet</option>}
				{byFamily(metrics.filter(isMapped)).map(({ family, metrics: members }) => (
					<optgroup key={family} label={FAMILY_WORDS[family].short}>
						{members.map((one) => (
							<option key={one.id} value={one.id} disabled={one.error !== null}>
								{one.error === null ? one.label : `${one.label} (failed)`}
							</option>
						))}
					</optgroup>
				))}
			</select>
		</label>
	);
}
