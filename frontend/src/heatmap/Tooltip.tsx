// What the pointed cell is, in words: beside the pointer for the eye, and as a sentence for a screen reader
// when keys moved the cursor (a pointer moves too much to be read aloud).
import type { MetricInfo } from "../protocol/types.gen";
import type { Cursor } from "../session/cursor";
import type { Session } from "../session/session";
import { NO_ROW } from "../store/rows";
import type { RunState } from "../store/run";
import { useSignal } from "../ui/useSignal";
import { readable } from "./draw";
import { formatValue, toDisplay } from "./scale";
import type { HeatmapView } from "./view";

interface Props {
	session: Session;
	metric: MetricInfo | null;
}

export function Tooltip({ session, metric, view }: Props & { view: HeatmapView }) {
	useSignal(session.cursor.changed);
	useSignal(view.moved);
	const { cursor } = session.cursor;
	const run = session.shown;
	if (cursor === null || run === null || cursor.run !== run.id) return null;
	const place = view.locate(cursor);
	const token = run.tokenText(cursor.position);
	if (place === null || token === undefined) return null;
	const rev = run.rows.rev(cursor.position);
	const sides = [place.x > 260 ? "tooltip-before" : "", place.low ? "tooltip-above" : ""];
	const left = place.x > 260 ? place.x - 8 : place.x + place.width + 8;
	return (
		<div
			className={["tooltip", ...sides].join(" ")}
			data-testid="heatmap-tooltip"
			style={{ left, top: Math.max(20, place.y - 8) }}
		>
			<div className="tooltip-token">{readable(token) || "(part of a character)"}</div>
			<dl>
				<dt>token</dt>
				<dd>
					{cursor.position}
					<span className="unit"> {cursor.position < run.promptLength ? "prompt" : "reply"}</span>
				</dd>
				{cursor.layer !== null && (
					<>
						<dt>layer</dt>
						<dd>{cursor.layer}</dd>
						<dt>{metric?.label ?? "value"}</dt>
						<dd>{valueText(run, metric, cursor)}</dd>
					</>
				)}
				<dt>revision</dt>
				<dd>{rev === NO_ROW ? "none yet" : rev}</dd>
			</dl>
		</div>
	);
}

export function CursorSentence({ session, metric }: Props) {
	useSignal(session.cursor.changed);
	const { cursor } = session.cursor;
	const run = session.shown;
	const spoken = cursor?.by === "keys" && run !== null && cursor.run === run.id;
	return (
		<p className="sr-only" aria-live="polite" data-testid="heatmap-sentence">
			{spoken && cursorSentence(run, metric, cursor)}
		</p>
	);
}

export function cursorSentence(run: RunState, metric: MetricInfo | null, cursor: Cursor): string {
	const token = JSON.stringify(run.tokenText(cursor.position) ?? "");
	const part = cursor.position < run.promptLength ? "prompt" : "reply";
	const where = `Token ${cursor.position} of the ${part}, ${token}`;
	const rev = run.rows.rev(cursor.position);
	if (rev === NO_ROW) return `${where}: no row yet.`;
	if (cursor.layer === null) return `${where}, revision ${rev}.`;
	return `${where}, layer ${cursor.layer}: ${metric?.label ?? "value"} ${valueText(run, metric, cursor)}, revision ${rev}.`;
}

function valueText(run: RunState, metric: MetricInfo | null, cursor: Cursor): string {
	if (metric === null || cursor.layer === null) return "no value";
	const sent = run.rows.value(metric.id, cursor.position, cursor.layer);
	if (sent === undefined) return "no value yet";
	const shown = formatValue(toDisplay(metric, sent));
	return metric.unit === "" ? shown : `${shown} ${metric.unit}`;
}
