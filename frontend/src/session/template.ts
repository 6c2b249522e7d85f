// What the model's chat template is told beside the messages. Settings outlive a model, and the next one's template
// may read others or take other values: only what fits is sent.
import type { ModelInfo, Start } from "../protocol/types.gen";

export type TemplateArgument = NonNullable<ModelInfo["template"]>[number];
export type TemplateValues = NonNullable<Start["template"]>;
export type TemplateValue = TemplateValues[string];

/** Characters of one value. */
export const MOST_TEXT = 2000;

export function fits({ kind, choices }: TemplateArgument, value: unknown): value is TemplateValue {
	switch (kind) {
		case "switch":
			return typeof value === "boolean";
		case "choice":
			return typeof value === "string" && choices.includes(value);
		case "number":
			return typeof value === "number" && Number.isFinite(value);
		case "text":
			return typeof value === "string" && value.length <= MOST_TEXT;
		default:
			return false;
	}
}

/** Of what a person has set, what this model's template takes. */
export function toTemplate(known: readonly TemplateArgument[], set: TemplateValues): TemplateValues {
	const pairs = known.flatMap((argument) => {
		const value = set[argument.name];
		return fits(argument, value) ? [[argument.name, value] as const] : [];
	});
	return Object.fromEntries(pairs);
}

/** What was found in a store: values of a template's kinds by names, and nothing else. */
export function checkTemplate(found: unknown): TemplateValues {
	if (typeof found !== "object" || found === null) return {};
	const pairs = Object.entries(found).filter(
		([name, value]) =>
			/^[A-Za-z_]\w{0,63}$/.test(name) && ["boolean", "number", "string"].includes(typeof value),
	);
	return Object.fromEntries(pairs.slice(0, 32));
}

/** `enable_thinking` as a person reads it: "Enable thinking". */
export function readableName(name: string): string {
	const words = name.replaceAll("_", " ").trim();
	return words.charAt(0).toUpperCase() + words.slice(1);
}
