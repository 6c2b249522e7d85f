// One vector's slider: range, number, reset, and what is known about its value. The bounds are those the
// vector's maker found useful; a mark shows where the effect is plain to see.
import type { KeyboardEvent } from "react";
import type { VectorInfo } from "../protocol/types.gen";
import { AgainIcon } from "../ui/icons";
import type { SliderStatus } from "./steering";

export const FINE_STEP = 0.01;

interface SliderProps {
	vector: VectorInfo;
	value: number;
	status: SliderStatus;
	onChange(value: number): void;
}

export function Slider({ vector, value, status, onChange }: SliderProps) {
	const lo = vector.range[0] ?? -1;
	const hi = vector.range[1] ?? 1;
	const at = (x: number) => `${(100 * (x - lo)) / (hi - lo || 1)}%`;
	const set = (next: number) => {
		if (Number.isFinite(next)) onChange(rounded(Math.min(hi, Math.max(lo, next))));
	};
	const onKey = (event: KeyboardEvent) => {
		const big = (hi - lo) / 10;
		const moves: Record<string, number> = {
			ArrowLeft: value - FINE_STEP,
			ArrowDown: value - FINE_STEP,
			ArrowRight: value + FINE_STEP,
			ArrowUp: value + FINE_STEP,
			PageDown: value - big,
			PageUp: value + big,
			Home: lo,
			End: hi,
			"0": 0,
		};
		const next = moves[event.key];
		if (next === undefined) return;
		event.preventDefault();
		set(next);
	};
	return (
		<div className={value === 0 ? "slider" : "slider on"}>
			<div className="slider-head">
				<label htmlFor={`slider-${vector.id}`} title={vector.description}>
					{vector.label}
				</label>
				<span className="slider-layers">{layersText(vector.layers)}</span>
				<span className="spring" />
				<input
					type="number"
					className="slider-number"
					aria-label={`Strength of ${vector.label}`}
					data-testid={`slider-number-${vector.id}`}
					value={value}
					min={lo}
					max={hi}
					step={FINE_STEP}
					onChange={(event) => {
						if (event.target.value !== "") set(event.target.valueAsNumber);
					}}
				/>
				<button
					type="button"
					className="quiet small"
					aria-label={`Set ${vector.label} back to 0`}
					title="Back to 0"
					disabled={value === 0}
					onClick={() => onChange(0)}
				>
					<AgainIcon />
				</button>
			</div>
			<div className="slider-track">
				<span className="slider-zero" style={{ left: at(0) }} />
				<span
					className="slider-suggested"
					style={{ left: at(vector.suggested) }}
					title={`Plain to see at ${vector.suggested}`}
				/>
				<span
					className="slider-fill"
					style={{ left: at(Math.min(0, value)), right: `calc(100% - ${at(Math.max(0, value))})` }}
				/>
				<input
					id={`slider-${vector.id}`}
					type="range"
					data-testid={`slider-${vector.id}`}
					min={lo}
					max={hi}
					step={FINE_STEP}
					value={value}
					aria-describedby={`status-${vector.id}`}
					aria-valuetext={value.toFixed(2)}
					onChange={(event) => set(event.target.valueAsNumber)}
					onKeyDown={onKey}
				/>
			</div>
			<div className="slider-foot">
				<span className="slider-about">{vector.description}</span>
				<span
					id={`status-${vector.id}`}
					className={`slider-status ${status.kind}`}
					data-testid={`slider-status-${vector.id}`}
					data-state={status.kind}
				>
					{statusText(status)}
				</span>
			</div>
		</div>
	);
}

export function statusText(status: SliderStatus): string {
	switch (status.kind) {
		case "idle":
			return "";
		case "next":
			return "for the next reply";
		case "sent":
			return "sent";
		case "in-force":
			return `in force at token ${status.position}`;
	}
}

/** Steps of a hundredth leave no tail of binary digits. */
function rounded(value: number): number {
	return Math.round(value * 100) / 100 || 0;
}

/** "layer 12", "layers 10-14", "layers 3, 9, 20", "6 layers". */
export function layersText(layers: readonly number[]): string {
	const [first] = layers;
	if (first === undefined) return "";
	if (layers.length === 1) return `layer ${first}`;
	if (layers.every((layer, index) => layer === first + index)) return `layers ${first}\u2013${layers.at(-1)}`;
	return layers.length <= 3 ? `layers ${layers.join(", ")}` : `${layers.length} layers`;
}
