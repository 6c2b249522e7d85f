import { describe, expect, test } from "vitest";
import { metricInfo } from "../testing";
import { byFamily, checkWatch, chosenMetrics, costOf, defaultWatch, MOST_METRICS, toStart } from "./watch";

const metrics = [
	metricInfo({ id: "own.a", family: "own", cost: "one call" }),
	metricInfo({ id: "norm", cost: "a few operations" }),
	metricInfo({ id: "update", cost: "a few operations" }),
	metricInfo({ id: "broken", error: "ValueError: odd" }),
	metricInfo({ id: "mlp_norm", family: "parts" }),
	metricInfo({ id: "lens_kl", family: "logit_lens" }),
];

describe("what is watched", () => {
	test("by default the residual stream, own metrics and the entropy", () => {
		expect(toStart(metrics, defaultWatch())).toEqual({
			metrics: ["own.a", "norm", "update"],
			lens: null,
			entropy: true,
		});
	});

	test("the logit lens is asked for by itself, and not when it failed or the server has none", () => {
		const watch = defaultWatch();
		watch.families = { ...watch.families, residual: false, own: false, logit_lens: true };
		expect(toStart(metrics, watch)).toEqual({ metrics: [], lens: { stride: 4, top: 5 }, entropy: true });
		expect(toStart(metrics.slice(0, 5), watch).lens).toBeNull();
		const failed = metricInfo({ id: "lens_kl", family: "logit_lens", error: "odd" });
		expect(toStart([failed], watch).lens).toBeNull();
	});

	test("a start never names more metrics than it may", () => {
		const many = Array.from({ length: 70 }, (_, i) => metricInfo({ id: `m${i}` }));
		expect(chosenMetrics(many, defaultWatch()).length).toBe(70);
		expect(toStart(many, defaultWatch()).metrics?.length).toBe(MOST_METRICS);
	});

	test("families come in their order, empty ones not at all, and say each cost once", () => {
		const groups = byFamily(metrics);
		expect(groups.map(({ family }) => family)).toEqual(["residual", "parts", "logit_lens", "own"]);
		expect(groups.map((group) => costOf(group.metrics))).toEqual(["a few operations", "", "", "one call"]);
	});

	test.each([null, 7, [], { families: 3, stride: "4", entropy: 1 }])("damaged %j is the default", (found) => {
		expect(checkWatch(found)).toEqual(defaultWatch());
	});
});
