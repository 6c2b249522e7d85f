// How one vector acts, beneath its slider: operator, scope, layers, bounds. What is typed is kept as it was typed
// and comes into force only when it can be used.
import { type ReactNode, useEffect, useId, useRef, useState } from "react";
import type { VectorInfo } from "../protocol/types.gen";
import { NumberInput } from "../ui/NumberInput";
import {
	normal,
	OPERATOR_WORDS,
	type Operator,
	OWN_WAY,
	SCOPE_WORDS,
	type Scope,
	type Setting,
	scopesFor,
	settingProblem,
	toWire,
} from "./setting";

const FIRST_OF: Partial<Record<Scope, string>> = {
	thought: "First thought tokens",
	answer: "First answer tokens",
};

interface Draft {
	/** Null for a function. */
	operator: Operator | null;
	scope: Scope;
	first: string;
	at: "own" | "one" | "range";
	from: string;
	to: string;
	lo: string;
	hi: string;
}

interface HowItActsProps {
	vector: VectorInfo;
	setting: Setting;
	modelLayers: number;
	/** The model's replies have a thought and an answer. */
	thinks: boolean;
	onChange(setting: Setting): void;
}

export function HowItActs({ vector, setting, modelLayers, thinks, onChange }: HowItActsProps) {
	const [draft, setDraft] = useState(() => draftOf(vector, setting));
	const [seen, setSeen] = useState(setting);
	/** What was last handed over from here: it comes back a frame later. */
	const mine = useRef(setting);
	const root = useRef<HTMLFieldSetElement>(null);
	// It opens below its slider, which may be at the end of the panel.
	useEffect(() => {
		root.current?.scrollIntoView({ block: "nearest" });
	}, []);
	if (seen !== setting) {
		setSeen(setting);
		// Set from elsewhere meanwhile: by a link, say.
		if (JSON.stringify(setting) !== JSON.stringify(mine.current)) setDraft(draftOf(vector, setting));
	}
	const typed = settingOf(vector, draft);
	const problem = settingProblem(vector, typed, modelLayers);
	const change = (changes: Partial<Draft>) => {
		const next = { ...draft, ...changes };
		setDraft(next);
		const typed = settingOf(vector, next);
		if (settingProblem(vector, typed, modelLayers) !== null) return;
		const usable = normal(vector, typed);
		mine.current = usable;
		onChange(usable);
	};
	const words =
		draft.operator === null
			? { about: "A function of this server. Its card says what it does.", formula: undefined }
			: OPERATOR_WORDS[draft.operator];
	const name = (what: string) => `${what}-${vector.id}`;
	const numbers = { step: "any", inputMode: "decimal" } as const;
	const counts = { step: 1, inputMode: "numeric" } as const;
	return (
		<fieldset className="how" ref={root} data-testid={name("how")}>
			<legend className="sr-only">How {vector.label} acts</legend>
			<div className="how-grid">
				{draft.operator !== null && (
					<OperatorField
						vector={vector}
						operator={draft.operator}
						testid={name("operator")}
						onChange={(operator) => change({ operator })}
					/>
				)}
				{draft.operator === "clamp" && (
					<>
						<Field label="At least">
							{(id) => (
								<NumberInput
									id={id}
									{...numbers}
									data-testid={name("lo")}
									placeholder="no bound"
									text={draft.lo}
									onText={(lo) => change({ lo })}
								/>
							)}
						</Field>
						<Field label="At most">
							{(id) => (
								<NumberInput
									id={id}
									{...numbers}
									data-testid={name("hi")}
									placeholder="no bound"
									text={draft.hi}
									onText={(hi) => change({ hi })}
								/>
							)}
						</Field>
					</>
				)}
				<Field label="Where">
					{(id) => (
						<select
							id={id}
							data-testid={name("scope")}
							value={draft.scope}
							onChange={(event) => change({ scope: event.target.value as Scope })}
						>
							{scopesFor(thinks, draft.scope).map((one) => (
								<option key={one} value={one}>
									{SCOPE_WORDS[one]}
								</option>
							))}
						</select>
					)}
				</Field>
				<Field label={FIRST_OF[draft.scope] ?? "First reply tokens"}>
					{(id) => (
						<NumberInput
							id={id}
							{...counts}
							data-testid={name("first")}
							min={1}
							placeholder="all"
							disabled={draft.scope === "prompt"}
							text={draft.first}
							onText={(first) => change({ first })}
						/>
					)}
				</Field>
				<Field label="Layers">
					{(id) => (
						<select
							id={id}
							data-testid={name("layers")}
							value={draft.at}
							onChange={(event) => change(layersFor(vector, event.target.value as Draft["at"]))}
						>
							<option value="own">Its own</option>
							<option value="one">One</option>
							<option value="range">A range</option>
						</select>
					)}
				</Field>
				{draft.at !== "own" && (
					<Field label={draft.at === "one" ? "Layer" : "From layer"}>
						{(id) => (
							<NumberInput
								id={id}
								{...counts}
								data-testid={name("from")}
								min={0}
								max={modelLayers - 1}
								text={draft.from}
								onText={(from) => change({ from })}
							/>
						)}
					</Field>
				)}
				{draft.at === "range" && (
					<Field label="To layer">
						{(id) => (
							<NumberInput
								id={id}
								{...counts}
								data-testid={name("to")}
								min={0}
								max={modelLayers - 1}
								text={draft.to}
								onText={(to) => change({ to })}
							/>
						)}
					</Field>
				)}
			</div>
			<div className="how-foot">
				<p
					className={problem === null ? "hint" : "hint wrong"}
					data-testid={name("how-about")}
					title={words.formula}
				>
					{problem ?? words.about}
				</p>
				{toWire(setting) !== null && (
					<button
						type="button"
						className="quiet small"
						data-testid={name("own-way")}
						onClick={() => {
							setDraft(draftOf(vector, OWN_WAY));
							mine.current = OWN_WAY;
							onChange(OWN_WAY);
						}}
					>
						Its own way
					</button>
				)}
			</div>
		</fieldset>
	);
}

function OperatorField(props: {
	vector: VectorInfo;
	operator: Operator;
	testid: string;
	onChange(operator: Operator): void;
}) {
	const { vector, operator, testid, onChange } = props;
	return (
		<Field label="Operator">
			{(id) => (
				<select
					id={id}
					data-testid={testid}
					value={operator}
					onChange={(event) => onChange(event.target.value as Operator)}
				>
					{vector.operators.map((one) => (
						<option key={one} value={one}>
							{OPERATOR_WORDS[one].label}
						</option>
					))}
				</select>
			)}
		</Field>
	);
}

/** Another kind of layers begins with the vector's own first and last one. */
function layersFor(vector: VectorInfo, at: Draft["at"]): Partial<Draft> {
	const [first = 0] = vector.layers;
	return { at, from: String(first), to: String(vector.layers.at(-1) ?? first) };
}

function draftOf(vector: VectorInfo, setting: Setting): Draft {
	const text = (value: number | null) => (value === null ? "" : String(value));
	const { layers } = setting;
	return {
		operator: setting.operator ?? vector.operator,
		scope: setting.scope,
		first: text(setting.first),
		at: layers === null ? "own" : layers[0] === layers[1] ? "one" : "range",
		from: text(layers?.[0] ?? null),
		to: text(layers?.[1] ?? null),
		lo: text(setting.lo),
		hi: text(setting.hi),
	};
}

function settingOf(vector: VectorInfo, draft: Draft): Setting {
	const number = (text: string) => (text.trim() === "" ? null : Number(text));
	const layer = (text: string) => number(text) ?? Number.NaN;
	const clamps = draft.operator === "clamp";
	return {
		operator: draft.operator === vector.operator ? null : draft.operator,
		lo: clamps ? number(draft.lo) : null,
		hi: clamps ? number(draft.hi) : null,
		scope: draft.scope,
		first: draft.scope === "prompt" ? null : number(draft.first),
		layers:
			draft.at === "own" ? null : [layer(draft.from), layer(draft.at === "one" ? draft.from : draft.to)],
	};
}

function Field({ label, children }: { label: string; children: (id: string) => ReactNode }) {
	const id = useId();
	return (
		<div className="field">
			<label htmlFor={id}>{label}</label>
			{children(id)}
		</div>
	);
}
