// One vector's slider: range, number, reset, and what is known about its value. The bounds are those the
// vector's maker found useful; a mark shows where the effect is plain to see.
import { type KeyboardEvent, type ReactNode, useState } from "react";
import type { VectorInfo } from "../protocol/types.gen";
import { AgainIcon, InfoIcon } from "../ui/icons";
import { NumberInput } from "../ui/NumberInput";
import { HowItActs } from "./HowItActs";
import { type Bounds, boundsOf, type Setting, settingText, withinBounds } from "./setting";
import type { SliderStatus } from "./steering";

interface SliderProps {
	vector: VectorInfo;
	value: number;
	setting: Setting;
	status: SliderStatus;
	modelLayers: number;
	/** The model's replies have a thought and an answer. */
	thinks: boolean;
	onChange(value: number): void;
	/** How it acts, and a strength that fits. */
	onAct(setting: Setting, value: number): void;
	/** Null where nothing more of it can be shown. */
	onCard: (() => void) | null;
	/** What is known while it acts. */
	children?: ReactNode;
}

export function Slider(props: SliderProps) {
	const { vector, value, setting, status, modelLayers, thinks, onChange, onAct, onCard, children } = props;
	const [open, setOpen] = useState(false);
	const bounds = boundsOf(vector, setting);
	const { lo, hi, step, suggested } = bounds;
	const at = (x: number) => `${(100 * (x - lo)) / (hi - lo || 1)}%`;
	const set = (next: number) => {
		if (Number.isFinite(next)) onChange(withinBounds(bounds, next));
	};
	const onKey = (event: KeyboardEvent) => {
		const big = (hi - lo) / 10;
		const moves: Record<string, number> = {
			ArrowLeft: value - step,
			ArrowDown: value - step,
			ArrowRight: value + step,
			ArrowUp: value + step,
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
	const how = settingText(setting);
	const fill = Math.min(hi, Math.max(lo, 0));
	return (
		<div className={value === 0 ? "slider" : "slider on"}>
			<div className="slider-head">
				<label htmlFor={`slider-${vector.id}`} title={vector.description} dir="auto">
					{vector.label}
				</label>
				<button
					type="button"
					className={how === "" ? "quiet small slider-how" : "quiet small slider-how changed"}
					data-testid={`how-toggle-${vector.id}`}
					aria-expanded={open}
					aria-label={`How ${vector.label} acts: ${how === "" ? layersText(vector.layers) : how}`}
					title="How it acts"
					onClick={() => setOpen(!open)}
				>
					<span>{how === "" ? layersText(vector.layers) : how}</span>
				</button>
				{vector.adapter && (
					<span className="slider-adapter" title={`Acts on replies with the adapter ${vector.adapter} only`}>
						{vector.adapter}
					</span>
				)}
				<span className="spring" />
				{onCard !== null && (
					<button
						type="button"
						className="quiet small"
						data-testid={`card-toggle-${vector.id}`}
						aria-label={`About ${vector.label}`}
						title="About this vector"
						onClick={onCard}
					>
						<InfoIcon />
					</button>
				)}
				<StrengthField vector={vector} value={value} bounds={bounds} onChange={set} />
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
				{lo <= 0 && hi >= 0 && <span className="slider-zero" style={{ left: at(0) }} />}
				{suggested !== null && (
					<span
						className="slider-suggested"
						style={{ left: at(suggested) }}
						title={`Plain to see at ${suggested}`}
					/>
				)}
				<span
					className="slider-fill"
					style={{
						left: at(Math.min(fill, value)),
						right: `calc(100% - ${at(Math.max(fill, value))})`,
					}}
				/>
				<input
					id={`slider-${vector.id}`}
					type="range"
					data-testid={`slider-${vector.id}`}
					min={lo}
					max={hi}
					step={step}
					value={value}
					aria-describedby={`status-${vector.id}`}
					aria-valuetext={value.toFixed(2)}
					onChange={(event) => set(event.target.valueAsNumber)}
					onKeyDown={onKey}
				/>
			</div>
			<div className="slider-foot">
				<span className="slider-about" title={vector.description} dir="auto">
					{vector.description}
				</span>
				<span
					id={`status-${vector.id}`}
					className={`slider-status ${status.kind}`}
					data-testid={`slider-status-${vector.id}`}
					data-state={status.kind}
				>
					{statusText(status)}
				</span>
			</div>
			{children}
			{open && (
				<HowItActs
					vector={vector}
					setting={setting}
					modelLayers={modelLayers}
					thinks={thinks}
					// A strength means something else under another operator; it must at least be on the slider.
					onChange={(next) => onAct(next, value === 0 ? 0 : withinBounds(boundsOf(vector, next), value))}
				/>
			)}
		</div>
	);
}

interface StrengthFieldProps {
	vector: VectorInfo;
	value: number;
	bounds: Bounds;
	onChange(value: number): void;
}

/**
 * The strength as a number. What is typed stands as it was typed until the field is left: a strength that is on the
 * slider acts at once, and one beyond its ends, which may be the beginning of another, when it is done.
 */
function StrengthField({ vector, value, bounds, onChange }: StrengthFieldProps) {
	const [typed, setTyped] = useState<string | null>(null);
	const numberOf = (text: string) => (text.trim() === "" ? Number.NaN : Number(text));
	const done = () => {
		const number = numberOf(typed ?? "");
		if (number < bounds.lo || number > bounds.hi) onChange(number);
		setTyped(null);
	};
	return (
		<NumberInput
			className="slider-number"
			aria-label={`Strength of ${vector.label}`}
			data-testid={`slider-number-${vector.id}`}
			text={typed ?? String(value)}
			min={bounds.lo}
			max={bounds.hi}
			step={bounds.step}
			onText={(text) => {
				setTyped(text);
				const number = numberOf(text);
				if (number >= bounds.lo && number <= bounds.hi) onChange(number);
			}}
			onBlur={done}
			onKeyDown={(event) => event.key === "Enter" && done()}
		/>
	);
}

export function statusText(status: SliderStatus): string {
	switch (status.kind) {
		case "idle":
			return "";
		case "next":
			return "for the next reply";
		case "held":
			return "waits for the connection";
		case "sent":
			return "sent";
		case "in-force":
			return `in force at token ${status.position}`;
	}
}

/** "layer 12", "layers 10-14", "layers 3, 9, 20", "6 layers". */
export function layersText(layers: readonly number[]): string {
	const [first] = layers;
	if (first === undefined) return "";
	if (layers.length === 1) return `layer ${first}`;
	if (layers.every((layer, index) => layer === first + index)) return `layers ${first}\u2013${layers.at(-1)}`;
	return layers.length <= 3 ? `layers ${layers.join(", ")}` : `${layers.length} layers`;
}
