import { describe, expect, test } from "vitest";
import { vectorInfo } from "../testing";
import {
	actsAt,
	boundsOf,
	normal,
	OPERATOR_WORDS,
	OWN_WAY,
	type Setting,
	settingProblem,
	settingText,
	toWire,
	withinBounds,
} from "./setting";

const joy = vectorInfo({ range: [-0.3, 0.3], suggested: 0.2, layers: [4, 5, 6] });
const feature = vectorInfo({
	kind: "feature",
	operator: "feature_set",
	operators: ["feature_set", "feature_scale", "add", "ablate"],
	range: [0, 12],
	suggested: 8,
});
const set = (changes: Partial<Setting>): Setting => ({ ...OWN_WAY, ...changes });

describe("bounds of a slider", () => {
	test.each([
		[joy, null, -0.3, 0.3, 0.2, 0.01],
		[joy, "ablate", -1, 1, 1, 0.01],
		[joy, "clamp", -1, 1, 1, 0.01],
		[joy, "add_absolute", -20, 20, null, 0.1],
		[feature, null, 0, 12, 8, 0.1],
		[feature, "feature_scale", -1, 4, 1, 0.01],
		[feature, "add", -1, 1, null, 0.01],
	] as const)("%# follow the operator", (vector, operator, lo, hi, suggested, step) => {
		expect(boundsOf(vector, { operator })).toEqual({ lo, hi, suggested, step });
	});

	test("a strength stays within them, on hundredths", () => {
		const bounds = boundsOf(joy, {});
		expect([5, -5, 0.1 + 0.2, -0.001].map((one) => withinBounds(bounds, one))).toEqual([0.3, -0.3, 0.3, 0]);
	});
});

describe("a setting", () => {
	test("that says nothing does not travel, and of others only what differs", () => {
		expect(toWire(OWN_WAY)).toBeNull();
		expect(toWire(set({ operator: "ablate", first: 3 }))).toEqual({ operator: "ablate", first: 3 });
	});

	test("loses what has no say", () => {
		expect(normal(joy, set({ operator: "add", lo: 1, hi: 2 }))).toEqual(OWN_WAY);
		expect(normal(joy, set({ operator: "feature_set" }))).toEqual(OWN_WAY);
		expect(normal(joy, set({ scope: "prompt", first: 4 }))).toEqual(set({ scope: "prompt" }));
		expect(normal(joy, set({ operator: "clamp", hi: 0 }))).toEqual(set({ operator: "clamp", hi: 0 }));
	});

	test.each([
		[{ operator: "clamp" }, "Clamp needs a bound."],
		[{ operator: "clamp", lo: Number.NaN, hi: 0.1 }, "A bound must be a number."],
		[{ operator: "clamp", lo: 0.2, hi: 0.1 }, "The lower bound is above the upper one."],
		[{ first: 0 }, "The number of reply tokens must be between 1 and 1,000,000."],
		[{ layers: [0, 30] }, "Layers go from 0 to 29."],
		[{ layers: [5, 4] }, "The first layer is above the last one."],
		[{ operator: "clamp", hi: 0, first: 1, layers: [0, 29] }, null],
	] as const)("%j: %s", (changes, problem) => {
		expect(settingProblem(joy, set(changes as Partial<Setting>), 30)).toBe(problem);
	});

	test("reads as words and names its layers", () => {
		expect(settingText(OWN_WAY)).toBe("");
		expect(
			settingText(set({ operator: "clamp", lo: 0, hi: 0.1, scope: "reply", first: 8, layers: [3, 9] })),
		).toBe("Clamp, 0 to 0.1, reply only, first 8 tokens, layers 3\u20139");
		expect(settingText(set({ operator: "clamp", hi: 0 }))).toBe("Clamp, at most 0");
		expect(actsAt(joy, {})).toEqual([4, 6]);
		expect(actsAt(joy, { layers: [2, 3] })).toEqual([2, 3]);
	});

	test("every operator is explained in sentences and has a formula", () => {
		for (const { about, formula } of Object.values(OPERATOR_WORDS)) {
			expect(about).toMatch(/^[A-Z].*\.$/);
			expect(formula).toMatch(/^h /);
		}
	});
});
