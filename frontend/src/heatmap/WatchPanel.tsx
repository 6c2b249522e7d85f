// What the next reply is watched with, family by family, each with what it costs the engine. It stands at the
// map and not among the sampling settings: it decides what the map can show.
import { type ReactNode, useId } from "react";
import type { MetricInfo } from "../protocol/types.gen";
import {
	byFamily,
	chosenMetrics,
	costOf,
	FAMILY_WORDS,
	type Family,
	MOST_METRICS,
	STRIDES,
	type Watch,
} from "../session/watch";
import { isComposing } from "../ui/composing";

interface WatchPanelProps {
	metrics: readonly MetricInfo[];
	watch: Watch;
	onChange(watch: Watch): void;
	onClose(): void;
}

export function WatchPanel({ metrics, watch, onChange, onClose }: WatchPanelProps) {
	const groups = byFamily(metrics);
	const tooMany = chosenMetrics(metrics, watch).length - MOST_METRICS;
	return (
		<section
			className="watch-panel"
			id="watch-panel"
			data-testid="watch-panel"
			aria-label="Watch"
			onKeyDown={(event) => {
				if (event.key !== "Escape" || isComposing(event.nativeEvent)) return;
				// Elsewhere Escape stops the reply.
				event.preventDefault();
				onClose();
			}}
		>
			<fieldset>
				<legend>The next reply is watched with</legend>
				<div className="watch-grid">
					{groups.map(({ family, metrics: members }) => (
						<Choice
							key={family}
							name={family}
							label={FAMILY_WORDS[family].full}
							on={watch.families[family]}
							{...hintOf(members)}
							onChange={(on) => onChange(withFamily(watch, family, on))}
						>
							{family === "logit_lens" && (
								<select
									data-testid="watch-stride"
									aria-label="Layers that the logit lens reads"
									value={watch.stride}
									disabled={!watch.families.logit_lens}
									onChange={(event) => {
										const stride = STRIDES.find((one) => one === Number(event.target.value));
										if (stride !== undefined) onChange({ ...watch, stride });
									}}
								>
									{STRIDES.map((stride) => (
										<option key={stride} value={stride}>
											{stride === 1 ? "every layer" : `every ${stride}${stride === 2 ? "nd" : "th"} layer`}
										</option>
									))}
								</select>
							)}
						</Choice>
					))}
					<Choice
						name="entropy"
						label="Entropy"
						on={watch.entropy}
						hint="of the final distribution, one number per token"
						wrong={false}
						onChange={(entropy) => onChange({ ...watch, entropy })}
					/>
				</div>
			</fieldset>
			{tooMany > 0 && (
				<p className="hint wrong">
					A reply can be watched with {MOST_METRICS} metrics; the last {tooMany} of those chosen are left out.
				</p>
			)}
		</section>
	);
}

export function withFamily(watch: Watch, family: Family, on: boolean): Watch {
	return { ...watch, families: { ...watch.families, [family]: on } };
}

function hintOf(members: readonly MetricInfo[]): { hint: string; wrong: boolean } {
	const wrong = members.every(({ error }) => error !== null);
	return { hint: wrong ? "failed on the server and is switched off" : costOf(members), wrong };
}

function Choice(props: {
	name: string;
	label: string;
	on: boolean;
	hint: string;
	wrong: boolean;
	onChange(on: boolean): void;
	children?: ReactNode;
}) {
	const id = useId();
	return (
		<div className="watch-choice">
			<div className="watch-line">
				<label>
					<input
						type="checkbox"
						data-testid={`watch-${props.name}`}
						checked={props.on}
						aria-describedby={id}
						onChange={(event) => props.onChange(event.target.checked)}
					/>
					{props.label}
				</label>
				{props.children}
			</div>
			<span className={props.wrong ? "hint wrong" : "hint"} id={id}>
				{props.hint}
			</span>
		</div>
	);
}
