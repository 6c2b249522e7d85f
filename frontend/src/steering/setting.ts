// How one vector acts: what its operators do in words, which strengths its slider offers under each, and which
// settings mean the same as none. A setting is kept in full and travels only where it differs from the vector's
// own way.
import type { VectorInfo, VectorSetting } from "../protocol/types.gen";

export type Operator = NonNullable<VectorInfo["operator"]>;
export type Scope = NonNullable<VectorSetting["scope"]>;
export type Setting = Required<VectorSetting>;
export type Settings = Record<string, VectorSetting>;
export type Strengths = Record<string, number>;

export const OWN_WAY: Setting = {
	operator: null,
	lo: null,
	hi: null,
	scope: "both",
	first: null,
	layers: null,
};

/** As many reply tokens as `first` may name. */
export const MOST_FIRST = 1_000_000;

export const OPERATOR_WORDS: Record<Operator, { label: string; about: string; formula: string }> = {
	add: {
		label: "Add",
		about: "Pushes the stream along the vector. Strength 0.1 is a tenth of the stream's own length.",
		formula: "h + s \u00b7 \u2016h\u2016 \u00b7 v\u0302",
	},
	add_absolute: {
		label: "Add, absolute",
		about: "Adds the vector as long as it is, times the strength.",
		formula: "h + s \u00b7 v",
	},
	ablate: {
		label: "Ablate",
		about: "Takes out what the stream has along the vector. Strength 1 takes out all of it.",
		formula: "h \u2212 s \u00b7 (h\u00b7v\u0302) \u00b7 v\u0302",
	},
	clamp: {
		label: "Clamp",
		about: "Keeps the projection on the vector within bounds. Strength 1 does so fully, 0.5 half way.",
		formula: "h + s \u00b7 (clip(h\u00b7v\u0302, lo, hi) \u2212 h\u00b7v\u0302) \u00b7 v\u0302",
	},
	feature_set: {
		label: "Set the feature",
		about: "Sets the feature's activation to the strength. Only 0 leaves it alone.",
		formula: "h + (s \u2212 f) \u00b7 d",
	},
	feature_scale: {
		label: "Scale the feature",
		about: "Changes the feature's activation by a factor. Strength 1 doubles it, \u22121 switches it off.",
		formula: "h + s \u00b7 f \u00b7 d",
	},
};

export const SCOPE_WORDS: Record<Scope, string> = {
	both: "Prompt and reply",
	prompt: "Prompt only",
	reply: "Reply only",
	thought: "Thought only",
	answer: "Answer only",
};

/** What a slider offers for a model: one that does not think has no parts of a reply. */
export function scopesFor(thinks: boolean, chosen: Scope): Scope[] {
	const all = Object.keys(SCOPE_WORDS) as Scope[];
	return all.filter((one) => thinks || one === chosen || (one !== "thought" && one !== "answer"));
}

export interface Bounds {
	lo: number;
	hi: number;
	/** Where the effect is plain to see; null where nobody knows. */
	suggested: number | null;
	step: number;
}

/** Null for a function, which does what it does. */
export function operatorOf(vector: VectorInfo, setting: VectorSetting): Operator | null {
	return setting.operator ?? vector.operator;
}

/** The strengths that a slider offers. A vector's range is meant for its own operator. */
export function boundsOf(vector: VectorInfo, setting: VectorSetting): Bounds {
	const operator = operatorOf(vector, setting);
	const [lo, hi, suggested] = ((): [number, number, number | null] => {
		if (operator === vector.operator) return [vector.range[0], vector.range[1], vector.suggested];
		switch (operator) {
			case "ablate":
			case "clamp":
				return [-1, 1, 1];
			case "feature_scale":
				return [-1, 4, 1];
			case "feature_set":
			case "add_absolute":
				return [-20, 20, null];
			case "add":
			case null:
				return [-1, 1, null];
		}
	})();
	return { lo, hi, suggested, step: hi - lo > 10 ? 0.1 : 0.01 };
}

/** A strength that the slider can show, on hundredths so that no tail of binary digits is left. */
export function withinBounds({ lo, hi }: Bounds, strength: number): number {
	return Math.round(Math.min(hi, Math.max(lo, strength)) * 100) / 100 || 0;
}

/** Why a setting cannot be used, as a sentence, or null when it can. */
export function settingProblem(vector: VectorInfo, setting: Setting, modelLayers: number): string | null {
	const { lo, hi, first, layers } = setting;
	if (operatorOf(vector, setting) === "clamp") {
		if (lo === null && hi === null) return "Clamp needs a bound.";
		if (Number.isNaN(lo) || Number.isNaN(hi)) return "A bound must be a number.";
		if (lo !== null && hi !== null && lo > hi) return "The lower bound is above the upper one.";
	}
	if (first !== null && !(Number.isInteger(first) && first >= 1 && first <= MOST_FIRST)) {
		return `The number of reply tokens must be between 1 and ${MOST_FIRST.toLocaleString("en")}.`;
	}
	if (layers === null) return null;
	const fits = layers.every((layer) => Number.isInteger(layer) && layer >= 0 && layer < modelLayers);
	if (!fits) return `Layers go from 0 to ${modelLayers - 1}.`;
	return layers[0] > layers[1] ? "The first layer is above the last one." : null;
}

/** The same setting with everything gone that has no say: the vector's own operator, bounds without a clamp. */
export function normal(vector: VectorInfo, setting: Setting): Setting {
	const chosen = setting.operator;
	const operator = chosen === vector.operator || !vector.operators.includes(chosen!) ? null : chosen;
	const clamps = operatorOf(vector, { operator }) === "clamp";
	return {
		operator,
		lo: clamps ? setting.lo : null,
		hi: clamps ? setting.hi : null,
		scope: setting.scope,
		first: setting.scope === "prompt" ? null : setting.first,
		layers: setting.layers,
	};
}

/** What travels: only the fields that differ from the vector's own way; null when none does. */
export function toWire(setting: Setting): VectorSetting | null {
	const different = Object.entries(setting).filter(
		([name, value]) => value !== OWN_WAY[name as keyof Setting],
	);
	return different.length === 0 ? null : (Object.fromEntries(different) as VectorSetting);
}

/** What came over the wire, in full. */
export function fromWire(setting: VectorSetting | undefined): Setting {
	return { ...OWN_WAY, ...setting } as Setting;
}

/** The layers at which a vector acts, first and last. */
export function actsAt(vector: VectorInfo, setting: VectorSetting): [number, number] {
	return setting.layers ?? [vector.layers[0] ?? 0, vector.layers.at(-1) ?? 0];
}

/** "Ablate, reply only, first 8 tokens, layers 3-9"; empty when the vector acts in its own way. */
export function settingText(setting: Setting): string {
	const words: string[] = [];
	if (setting.operator !== null) words.push(OPERATOR_WORDS[setting.operator].label);
	if (setting.lo !== null || setting.hi !== null) {
		words.push(
			setting.lo === null
				? `at most ${setting.hi}`
				: setting.hi === null
					? `at least ${setting.lo}`
					: `${setting.lo} to ${setting.hi}`,
		);
	}
	if (setting.scope !== "both") words.push(SCOPE_WORDS[setting.scope].toLowerCase());
	if (setting.first !== null) words.push(`first ${setting.first} tokens`);
	if (setting.layers !== null) {
		const [first, last] = setting.layers;
		words.push(first === last ? `layer ${first}` : `layers ${first}\u2013${last}`);
	}
	return words.join(", ");
}
