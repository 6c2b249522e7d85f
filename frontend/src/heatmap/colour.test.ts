import { describe, expect, test } from "vitest";
import { colourAt, cssGradient, DIVERGING, lightness, oklabToRgb, SEQUENTIAL, TABLE_SIZE } from "./colour";

const steps = (table: Uint8ClampedArray) =>
	Array.from({ length: TABLE_SIZE }, (_, i) =>
		lightness([table[4 * i]!, table[4 * i + 1]!, table[4 * i + 2]!]),
	);

/** The share by which neighbouring steps of lightness differ from the straight line between the ends. */
function straightness(values: number[]): number {
	const [first, last] = [values[0]!, values.at(-1)!];
	return Math.max(
		...values.map(
			(v, i) => Math.abs(v - (first + ((last - first) * i) / (values.length - 1))) / Math.abs(last - first),
		),
	);
}

describe("sequential scale", () => {
	test("lightness rises all the way, in equal steps", () => {
		const values = steps(SEQUENTIAL);
		// Eight bits per channel round each colour, so a single step may stand still but never turn back far.
		for (let i = 1; i < values.length; i++) expect(values[i]! - values[i - 1]!).toBeGreaterThan(-0.002);
		for (let i = 8; i < values.length; i++) expect(values[i]!).toBeGreaterThan(values[i - 8]!);
		expect(straightness(values)).toBeLessThan(0.01);
		expect(values.at(-1)! - values[0]!).toBeGreaterThan(0.7);
	});
});

describe.each(["light", "dark"] as const)("diverging scale on a %s page", (theme) => {
	const values = steps(DIVERGING[theme]);
	const sign = theme === "light" ? 1 : -1;
	const half = TABLE_SIZE / 2;
	test("lightness goes one way to the middle and back, in equal steps", () => {
		for (let i = 8; i < half; i++) expect(sign * (values[i]! - values[i - 8]!)).toBeGreaterThan(0);
		for (let i = half + 8; i < TABLE_SIZE; i++) expect(sign * (values[i]! - values[i - 8]!)).toBeLessThan(0);
		expect(straightness(values.slice(0, half))).toBeLessThan(0.02);
		expect(straightness(values.slice(half))).toBeLessThan(0.02);
	});
	test("both sides weigh the same and differ in hue", () => {
		for (let i = 0; i < half; i++) expect(values[i]!).toBeCloseTo(values[TABLE_SIZE - 1 - i]!, 1);
		const [low, high] = [colourAt(DIVERGING[theme], 0), colourAt(DIVERGING[theme], 1)];
		expect(low[2]).toBeGreaterThan(low[0]);
		expect(high[0]).toBeGreaterThan(high[2]);
	});
});

test("lightness undoes oklabToRgb, also where chroma had to give way", () => {
	for (const [L, a, b] of [
		[0.5, 0, 0],
		[0.7, 0.05, 0.1],
		[0.9, 0.3, 0.3],
		[0.2, -0.3, 0.1],
	] as const) {
		expect(lightness(oklabToRgb(L, a, b))).toBeCloseTo(L, 2);
	}
});

test("the legend's gradient runs from end to end", () => {
	const css = cssGradient(SEQUENTIAL);
	expect(css).toContain(`rgb(${colourAt(SEQUENTIAL, 0).join(" ")})`);
	expect(css).toContain(`rgb(${colourAt(SEQUENTIAL, 1).join(" ")})`);
	expect(colourAt(SEQUENTIAL, -3)).toEqual(colourAt(SEQUENTIAL, 0));
	expect(colourAt(SEQUENTIAL, 9)).toEqual(colourAt(SEQUENTIAL, 1));
});
