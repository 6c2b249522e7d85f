// The ends of the scale at the legend's bar, to be dragged or moved by keys. An end that was moved stays where it was put,
// whatever numbers come; a double click lets the numbers decide again.
import { type KeyboardEvent, type PointerEvent, useRef } from "react";
import type { MetricInfo } from "../protocol/types.gen";
import type { Range } from "../view/view";
import { formatValue, toDisplay } from "./scale";

interface LegendEndsProps {
	metric: MetricInfo;
	/** What the bar spans, in sent numbers. */
	range: Range;
	onRange(range: Range | null): void;
}

type End = "lo" | "hi";
/** By a key: of the scale's length. */
const STEP = 1 / 50;
/** No scale is shorter, as a share of what it was. */
const SHORTEST = 1 / 1000;

export function LegendEnds({ metric, range, onRange }: LegendEndsProps) {
	const bar = useRef<HTMLDivElement>(null);
	const drag = useRef<{ end: End; at: number; range: Range } | null>(null);
	const move = (from: Range, end: End, share: number) => onRange(movedEnd(metric, from, end, share));

	const onDown = (end: End) => (event: PointerEvent<HTMLElement>) => {
		event.preventDefault();
		event.currentTarget.setPointerCapture(event.pointerId);
		event.currentTarget.focus();
		drag.current = { end, at: event.clientX, range };
	};
	const onMove = (event: PointerEvent<HTMLElement>) => {
		const began = drag.current;
		if (began === null) return;
		const width = bar.current!.getBoundingClientRect().width || 1;
		move(began.range, began.end, (event.clientX - began.at) / width);
	};
	const onUp = () => {
		drag.current = null;
	};
	const onKey = (end: End) => (event: KeyboardEvent) => {
		const steps: Record<string, number> = {
			ArrowLeft: -1,
			ArrowDown: -1,
			ArrowRight: 1,
			ArrowUp: 1,
			PageDown: -5,
			PageUp: 5,
		};
		const step = steps[event.key];
		if (step === undefined) return;
		event.preventDefault();
		move(range, end, step * STEP);
	};
	const handle = (end: End, label: string) => (
		<span
			className={`legend-end legend-${end}`}
			data-testid={`legend-${end}`}
			role="slider"
			tabIndex={0}
			aria-label={`${label} end of the scale`}
			aria-valuenow={toDisplay(metric, range[end])}
			aria-valuetext={formatValue(toDisplay(metric, range[end]))}
			title="Drag to set this end of the scale"
			onPointerDown={onDown(end)}
			onPointerMove={onMove}
			onPointerUp={onUp}
			onPointerCancel={onUp}
			onDoubleClick={() => onRange(null)}
			onKeyDown={onKey(end)}
		/>
	);
	return (
		<div className="legend-ends" ref={bar}>
			{handle("lo", "Low")}
			{handle("hi", "High")}
		</div>
	);
}

/**
 * The range when one end was moved by a share of the scale's length. On a diverging scale the middle stays, and the other
 * end moves as far away from it.
 */
export function movedEnd(metric: MetricInfo, { lo, hi }: Range, end: End, share: number): Range {
	const length = hi - lo;
	if (metric.scale.kind === "diverging" && metric.scale.mid !== null) {
		const middle = (lo + hi) / 2;
		const half = Math.max(length * SHORTEST, length / 2 + (end === "hi" ? share : -share) * length);
		return { lo: middle - half, hi: middle + half };
	}
	return end === "lo"
		? { lo: Math.min(lo + share * length, hi - SHORTEST * length), hi }
		: { lo, hi: Math.max(hi + share * length, lo + SHORTEST * length) };
}
