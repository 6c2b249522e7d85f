// What the next reply is watched with: families of metrics, the logit lens, the entropy of the final
// distribution. Chosen by family and not by metric, because within a family the second metric costs next to
// nothing.
import type { MetricInfo, Start } from "../protocol/types.gen";

export type Family = MetricInfo["family"];

/** In the order in which people read them. */
export const FAMILIES: readonly Family[] = [
	"residual",
	"parts",
	"projection",
	"steering",
	"router",
	"logit_lens",
	"own",
	"live",
];
/** Short, as the picker groups by them, and in full, as under Watch. */
export const FAMILY_WORDS: Record<Family, { short: string; full: string }> = {
	residual: { short: "Residual stream", full: "Residual stream" },
	parts: { short: "Parts", full: "Parts: attention and MLP" },
	projection: { short: "Projection", full: "Projection on vectors" },
	steering: { short: "Steering", full: "What steering added" },
	router: { short: "Experts", full: "Experts and their routers" },
	logit_lens: { short: "Logit lens", full: "Logit lens" },
	own: { short: "Own metrics", full: "Own metrics" },
	live: { short: "Live values", full: "Live values of the run's own code" },
};

export const STRIDES = [1, 2, 4, 8] as const;
/** How many of the likeliest tokens a layer names. */
const GUESSES = 5;
/** As many metrics as a start may name. */
export const MOST_METRICS = 64;

export interface Watch {
	families: Record<Family, boolean>;
	/** The logit lens reads every so many layers, counted down from the last. */
	stride: (typeof STRIDES)[number];
	entropy: boolean;
}

export function defaultWatch(): Watch {
	return {
		families: {
			residual: true,
			parts: false,
			projection: false,
			steering: false,
			router: false,
			logit_lens: false,
			own: true,
			// Asked of nobody: the run's own code computes them, and no server lists any.
			live: true,
		},
		stride: 4,
		entropy: true,
	};
}

/** What was kept, field by field; the default where it is damaged. */
export function checkWatch(found: unknown): Watch {
	const watch = defaultWatch();
	if (typeof found !== "object" || found === null) return watch;
	const { families, stride, entropy } = found as Record<string, unknown>;
	if (typeof families === "object" && families !== null) {
		for (const family of FAMILIES) {
			const on = (families as Record<string, unknown>)[family];
			if (typeof on === "boolean") watch.families[family] = on;
		}
	}
	watch.stride = STRIDES.find((one) => one === stride) ?? watch.stride;
	if (typeof entropy === "boolean") watch.entropy = entropy;
	return watch;
}

/** Ids of the chosen metrics that work, without the logit lens, which is asked for by itself. */
export function chosenMetrics(metrics: readonly MetricInfo[], watch: Watch): string[] {
	return metrics
		.filter(({ family, error }) => family !== "logit_lens" && watch.families[family] && error === null)
		.map(({ id }) => id);
}

/** The fields of a start that say what is watched. */
export function toStart(
	metrics: readonly MetricInfo[],
	watch: Watch,
): Required<Pick<Start, "metrics" | "lens" | "entropy">> {
	const lens =
		watch.families.logit_lens &&
		metrics.some(({ family, error }) => family === "logit_lens" && error === null);
	return {
		metrics: chosenMetrics(metrics, watch).slice(0, MOST_METRICS),
		lens: lens ? { stride: watch.stride, top: GUESSES } : null,
		entropy: watch.entropy,
	};
}

/** The families that the server has metrics of, each with its metrics. */
export function byFamily(metrics: readonly MetricInfo[]): { family: Family; metrics: MetricInfo[] }[] {
	return FAMILIES.map((family) => ({
		family,
		metrics: metrics.filter((metric) => metric.family === family),
	})).filter((group) => group.metrics.length > 0);
}

/** Whether a map can show it: numbers of experts are names, and a scale of colours would order them. */
export function isMapped(metric: MetricInfo): boolean {
	return !(metric.family === "router" && metric.id.startsWith("expert:"));
}

/** What a family costs, as its metrics say it, each thing once. */
export function costOf(metrics: readonly MetricInfo[]): string {
	return [...new Set(metrics.map(({ cost }) => cost).filter((cost) => cost !== ""))].join("; ");
}
