// How the next reply is drawn. A field that holds something impossible says so and keeps the last good
// value in force, so that a start is never refused for what is typed here.
import { type ReactNode, useId, useState } from "react";
import { type AdapterInfo, SAMPLING_NUMBERS } from "../protocol/types.gen";
import {
	adapterOf,
	defaultSettings,
	formatStops,
	NUMBER_NAMES,
	type NumberName,
	numberProblem,
	parseStops,
	type Settings,
} from "../session/settings";
import { MOST_TEXT, readableName, type TemplateArgument, type TemplateValue } from "../session/template";
import { CloseIcon } from "../ui/icons";
import { NumberInput } from "../ui/NumberInput";

const WORDS: Record<NumberName, { label: string; hint: string }> = {
	max_tokens: { label: "Longest reply", hint: "tokens" },
	temperature: { label: "Temperature", hint: "0 always takes the likeliest token" },
	top_p: { label: "Top p", hint: "smallest set of tokens with this share" },
	top_k: { label: "Top k", hint: "0 means no limit" },
	min_p: { label: "Min p", hint: "least share of the likeliest token" },
	seed: { label: "Seed", hint: "empty means a new one each time" },
	repetition_penalty: { label: "Repetition penalty", hint: "1 means none" },
};
const STEPS: Record<NumberName, number> = {
	max_tokens: 1,
	temperature: 0.1,
	top_p: 0.01,
	top_k: 1,
	min_p: 0.01,
	seed: 1,
	repetition_penalty: 0.05,
};

interface SettingsPanelProps {
	settings: Settings;
	/** The model has no chat template, and so no place for a system prompt. */
	continues: boolean;
	/** LoRA adapters that a reply may be written with. */
	adapters: readonly AdapterInfo[];
	/** What the model's chat template can be told. */
	template: readonly TemplateArgument[];
	onChange(settings: Settings): void;
	onClose(): void;
}

export function SettingsPanel(props: SettingsPanelProps) {
	const { settings, continues, adapters, template, onChange, onClose } = props;
	const [stops, setStops] = useState(() => formatStops(settings.stop));
	// A new key gives every field its default as the text, also those that held something impossible.
	const [round, setRound] = useState(0);
	const reset = () => {
		onChange({ ...defaultSettings(), theme: settings.theme, watch: settings.watch });
		setStops("");
		setRound(round + 1);
	};
	return (
		<section
			className="settings-panel"
			id="settings-panel"
			data-testid="settings-panel"
			aria-label="Settings"
		>
			<div className="settings-grid">
				{adapters.length > 0 && (
					<Field label="Written with" hint="a LoRA adapter, or the base model">
						{(id) => (
							<select
								id={id}
								data-testid="setting-adapter"
								value={adapterOf(settings, adapters) ?? ""}
								onChange={(event) => onChange({ ...settings, adapter: event.target.value || null })}
							>
								<option value="">Base model</option>
								{adapters.map(({ id: name, rank }) => (
									<option key={name} value={name}>
										{name} (rank {rank})
									</option>
								))}
							</select>
						)}
					</Field>
				)}
				{NUMBER_NAMES.map((name) => (
					<NumberField
						key={`${name}-${round}`}
						name={name}
						value={settings.numbers[name]}
						onChange={(value) => onChange({ ...settings, numbers: { ...settings.numbers, [name]: value } })}
					/>
				))}
				<Field label="Stop strings" hint="one per line, \n for a new line">
					{(id) => (
						<textarea
							id={id}
							rows={2}
							dir="auto"
							data-testid="setting-stop"
							value={stops}
							onChange={(event) => {
								setStops(event.target.value);
								onChange({ ...settings, stop: parseStops(event.target.value) });
							}}
						/>
					)}
				</Field>
				{template.map((argument) => (
					<TemplateField
						key={`${argument.name}-${round}`}
						argument={argument}
						value={settings.template[argument.name]}
						onChange={(value) => {
							const { [argument.name]: _, ...others } = settings.template;
							const set = value === undefined ? others : { ...others, [argument.name]: value };
							onChange({ ...settings, template: set });
						}}
					/>
				))}
				{continues ? (
					<p className="hint wide">This model takes no system prompt: it has no chat template.</p>
				) : (
					<Field label="System prompt" hint="may be empty; New chat clears it" wide>
						{(id) => (
							<textarea
								id={id}
								rows={2}
								dir="auto"
								data-testid="setting-system"
								value={settings.system}
								onChange={(event) => onChange({ ...settings, system: event.target.value })}
							/>
						)}
					</Field>
				)}
			</div>
			<div className="settings-foot">
				<button type="button" className="quiet small" onClick={reset}>
					Defaults
				</button>
				<span className="spring" />
				<button type="button" className="quiet small" onClick={onClose}>
					<CloseIcon /> Close
				</button>
			</div>
		</section>
	);
}

function NumberField(props: {
	name: NumberName;
	value: number | null;
	onChange(value: number | null): void;
}) {
	const { name, value, onChange } = props;
	const [text, setText] = useState(value === null ? "" : String(value));
	const { label, hint } = WORDS[name];
	const limit = SAMPLING_NUMBERS[name];
	const problem = numberProblem(name, parse(text));
	return (
		<Field label={label} hint={problem ?? hint} wrong={problem !== null}>
			{(id) => (
				<NumberInput
					id={id}
					inputMode={limit.integer ? "numeric" : "decimal"}
					data-testid={`setting-${name}`}
					text={text}
					min={limit.min}
					max={limit.max}
					step={STEPS[name]}
					aria-invalid={problem !== null}
					onText={(typed) => {
						setText(typed);
						const next = parse(typed);
						if (numberProblem(name, next) === null) onChange(next);
					}}
				/>
			)}
		</Field>
	);
}

/** An argument of the chat template. What is left to the template is not sent. */
function TemplateField(props: {
	argument: TemplateArgument;
	value: TemplateValue | undefined;
	onChange(value: TemplateValue | undefined): void;
}) {
	const { argument, value, onChange } = props;
	const { name, kind, choices, default: own } = argument;
	const id = `setting-template-${name}`;
	const given = own === null ? "as the chat template has it" : `${wordOf(own)}, by the chat template`;
	const [text, setText] = useState(value === undefined ? "" : String(value));
	const hint = `${name} of the chat template`;
	if (kind === "switch" || kind === "choice") {
		const options: TemplateValue[] = kind === "switch" ? [true, false] : choices;
		return (
			<Field label={readableName(name)} hint={hint}>
				{(field) => (
					<select
						id={field}
						data-testid={id}
						value={options.includes(value as TemplateValue) ? String(value) : ""}
						onChange={(event) => onChange(options.find((one) => String(one) === event.target.value))}
					>
						<option value="">{given}</option>
						{options.map((one) => (
							<option key={String(one)} value={String(one)}>
								{wordOf(one)}
							</option>
						))}
					</select>
				)}
			</Field>
		);
	}
	const wrong = kind === "number" && text.trim() !== "" && !Number.isFinite(Number(text));
	return (
		<Field label={readableName(name)} hint={wrong ? "This is not a number." : hint} wrong={wrong}>
			{(field) => (
				<input
					id={field}
					data-testid={id}
					value={text}
					placeholder={given}
					inputMode={kind === "number" ? "decimal" : "text"}
					maxLength={MOST_TEXT}
					aria-invalid={wrong}
					onChange={(event) => {
						const typed = event.target.value;
						setText(typed);
						if (typed.trim() === "") onChange(undefined);
						else if (kind !== "number") onChange(typed);
						else if (Number.isFinite(Number(typed))) onChange(Number(typed));
					}}
				/>
			)}
		</Field>
	);
}

function wordOf(value: TemplateValue): string {
	return value === true ? "on" : value === false ? "off" : String(value);
}

function parse(text: string): number | null {
	return text.trim() === "" ? null : Number(text);
}

function Field(props: {
	label: string;
	hint: string;
	wrong?: boolean;
	wide?: boolean;
	children: (id: string) => ReactNode;
}) {
	const id = useId();
	return (
		<div className={props.wide ? "field wide" : "field"}>
			<label htmlFor={id}>{props.label}</label>
			{props.children(id)}
			<span className={props.wrong ? "hint wrong" : "hint"}>{props.hint}</span>
		</div>
	);
}
