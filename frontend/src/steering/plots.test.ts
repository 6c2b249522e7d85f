import { expect, test } from "vitest";
import { extent, path, scale } from "./plots";

test("a scale is straight, also upside down, and knows a middle without a span", () => {
	expect([0, 5, 10].map(scale(0, 10, 100, 0))).toEqual([100, 50, 0]);
	expect(scale(3, 3, 0, 10)(3)).toBe(5);
});

test("a path leaves out what is no number", () => {
	const at = (x: number, y: number) => ({ x, y });
	expect(path([at(0, 1), at(1, 2), at(2, Number.NaN), at(3, 4)])).toBe("M0.0 1.0L1.0 2.0M3.0 4.0");
	expect(path([])).toBe("");
});

test("an extent holds 0", () => {
	expect(extent([0.2, 0.5, Number.NaN])).toEqual([0, 0.5]);
	expect(extent([-1, -0.5])).toEqual([-1, 0]);
	expect(extent([])).toEqual([0, 0]);
});
