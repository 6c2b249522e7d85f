// What a server said of its model, metrics and vectors, and of a run's end, as a recording keeps it: checks of the
// types that travel. A field that is added to one of these types is missing in older recordings, so its check must
// say what to take there (`otherwise`).
import type {
	Finished,
	LensOptions,
	MetricInfo,
	ModelInfo,
	Sampling,
	Span,
	VectorInfo,
	VectorSetting,
} from "../protocol/types.gen";
import {
	type Check,
	fields,
	list,
	maybe,
	number,
	oneOf,
	orNull,
	otherwise,
	pair,
	someText,
	text,
	truth,
	whole,
	wholeUpTo,
} from "./checks";

/** A map draws a row for each. */
const MOST_LAYERS = 10_000;

const templateValue: Check<boolean | number | string> = (value, where) => {
	if (typeof value === "boolean") return value;
	return typeof value === "number" ? number(value, where) : text(value, where);
};

export const modelInfo = fields<ModelInfo>({
	id: text,
	layers: wholeUpTo(MOST_LAYERS),
	hidden_size: whole,
	vocab_size: whole,
	dtype: text,
	max_model_len: whole,
	special_ids: list(whole),
	chat: oneOf("template", "file", "none"),
	experts: maybe(fields({ count: whole, chosen: whole })),
	adapters: otherwise([], list(fields({ id: text, rank: whole }))),
	thoughts: maybe(fields({ start: someText, end: someText })),
	template: otherwise(
		[],
		list(
			fields<ModelInfo["template"][number]>({
				name: text,
				kind: oneOf("switch", "choice", "text", "number"),
				choices: list(text),
				default: orNull(templateValue),
			}),
		),
	),
});

export const metricInfo = fields<MetricInfo>({
	id: text,
	label: text,
	description: text,
	unit: text,
	transform: oneOf("linear", "log2"),
	scale: fields<MetricInfo["scale"]>({
		kind: oneOf("sequential", "diverging"),
		lo: orNull(number),
		hi: orNull(number),
		mid: orNull(number),
	}),
	family: oneOf("residual", "parts", "projection", "steering", "router", "logit_lens", "own", "live"),
	cost: text,
	default: truth,
	error: orNull(text),
});

const operator = oneOf("add", "add_absolute", "ablate", "clamp", "feature_set", "feature_scale");

export const vectorInfo = fields<VectorInfo>({
	id: text,
	label: text,
	description: text,
	layers: list(wholeUpTo(MOST_LAYERS), MOST_LAYERS),
	range: pair(number),
	suggested: number,
	kind: oneOf("direction", "feature", "function"),
	operator: orNull(operator),
	operators: list(operator),
	feature: orNull(whole),
	adapter: maybe(text),
	file: maybe(text),
	own: otherwise(false, truth),
});

export const vectorSetting = fields<VectorSetting>({
	operator: maybe(operator),
	lo: maybe(number),
	hi: maybe(number),
	scope: otherwise("both", oneOf("both", "prompt", "reply", "thought", "answer")),
	first: maybe(whole),
	layers: maybe(pair(whole)),
});

/** What is not set stays out: defaults may change. */
export const sampling: Check<Sampling> = (value, where) => {
	const given = fields<{ [name in keyof Sampling]: Sampling[name] | null }>({
		max_tokens: maybe(number),
		temperature: maybe(number),
		top_p: maybe(number),
		top_k: maybe(number),
		min_p: maybe(number),
		seed: maybe(number),
		stop: maybe(list(text)),
		repetition_penalty: maybe(number),
	})(value, where);
	return Object.fromEntries(Object.entries(given).filter(([, one]) => one !== null));
};

export { templateValue };

export const span = fields<Span>({ role: text, start: whole, end: whole });

export const lensOptions = fields<LensOptions>({ stride: whole, top: whole });

/** As the server's last frame of a run says it, without what only a connection needs. */
export type Ending = Omit<Finished, "type" | "run" | "seq">;
export interface Problem {
	code: string;
	message: string;
}

export const ending: Check<Ending> = fields<Ending>({
	reason: oneOf("stop", "length", "cancelled", "error"),
	stop: maybe(text),
	usage: fields<Ending["usage"]>({
		prompt_tokens: whole,
		reply_tokens: whole,
		cached_tokens: otherwise(0, whole),
	}),
	timing: fields<Ending["timing"]>({
		first_token_ms: orNull(number),
		total_ms: number,
		tokens_per_s: orNull(number),
	}),
	error: maybe(fields({ code: text as Check<NonNullable<Ending["error"]>["code"]>, message: text })),
});

export const problem: Check<Problem> = fields<Problem>({ code: text, message: text });
