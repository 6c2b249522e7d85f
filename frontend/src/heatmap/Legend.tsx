// The colour bar with numbers in the metric's own unit, and a mark where the pointed cell's value lies.
import { useMemo } from "react";
import type { MetricInfo } from "../protocol/types.gen";
import type { Session } from "../session/session";
import { useSignal } from "../ui/useSignal";
import type { Range } from "../view/view";
import { cssGradient, tableOf } from "./colour";
import { LegendEnds } from "./LegendEnds";
import type { Drawn } from "./painter";
import { fixedEnds, formatValue, legendRange, place, toDisplay } from "./scale";

interface LegendProps {
	session: Session;
	metric: MetricInfo;
	drawn: Drawn | null;
	dark: boolean;
}

export function Legend({ session, metric, drawn, dark }: LegendProps) {
	useSignal(session.cursor.changed);
	const background = useMemo(() => cssGradient(tableOf(metric, dark)), [metric, dark]);
	const cursor = session.cursor.cursor;
	const run = session.shown;
	const range = drawn === null ? null : legendRange(metric, drawn.range);
	const value =
		cursor === null || cursor.layer === null || cursor.run !== run?.id
			? undefined
			: session.strip?.owner(cursor.position).rows.value(metric.id, cursor.position, cursor.layer);
	const setRange = (next: Range | null) => session.looking.setRange(metric.id, next);
	const fixed = fixedEnds(metric);
	const tick = (share: number) =>
		range === null ? "" : formatValue(toDisplay(metric, range.lo + share * (range.hi - range.lo)));
	return (
		<div className="legend" data-testid="legend" data-lo={tick(0)} data-hi={tick(1)}>
			<span className="legend-name">
				<bdi>{metric.label}</bdi>
				{metric.unit && <span className="unit"> ({metric.unit})</span>}
				{metric.transform === "log2" && <span className="unit">, log scale</span>}
			</span>
			<div className="legend-scale">
				<div className="legend-bar" style={{ background }}>
					{range !== null && value != null && Number.isFinite(value) && drawn !== null && (
						<span className="legend-mark" style={{ left: `${100 * place(metric, drawn.range, value)}%` }} />
					)}
					{range !== null && <LegendEnds metric={metric} range={range} onRange={setRange} />}
				</div>
				<div className="legend-ticks">
					<span>
						{range !== null && fixed.lo === null && "\u2264 "}
						{tick(0)}
					</span>
					<span>{tick(0.5)}</span>
					<span>
						{range !== null && fixed.hi === null && "\u2265 "}
						{tick(1)}
					</span>
				</div>
			</div>
			{session.view.now.ranges[metric.id] !== undefined && (
				<button
					type="button"
					className="quiet small bordered"
					data-testid="legend-auto"
					title="Let the numbers decide the scale again"
					onClick={() => setRange(null)}
				>
					Automatic scale
				</button>
			)}
			<span className="legend-missing">
				<span className="legend-hatch" /> no value
			</span>
			{metric.family === "logit_lens" && (
				<span className="legend-missing">
					<span className="legend-ground" /> not computed
				</span>
			)}
		</div>
	);
}
