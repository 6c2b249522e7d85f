import { describe, expect, test, vi } from "vitest";
import { RowStore } from "../store/rows";
import { chance, metricInfo, rowsFrame } from "../testing";
import { MetricField } from "../testing/field";
import {
	fixedEnds,
	formatShare,
	formatValue,
	grown,
	legendRange,
	percentiles,
	place,
	ScaleFit,
	toDisplay,
} from "./scale";

const field = (rows: RowStore, metric = "norm") => new MetricField(rows, metric);

describe("fitting", () => {
	test("position 0 has no say", () => {
		const rows = new RowStore();
		rows.append(rowsFrame(0, 50, { value: (p) => (p === 0 ? 1000 : 10 + (p % 5)) }));
		expect(percentiles(field(rows))).toEqual({ lo: 10, hi: 14 });
		expect(percentiles(field(rows, "other"))).toBeNull();
	});

	test("neither have one in a hundred outliers, missing rows or numbers that are none", () => {
		const rows = new RowStore();
		rows.append(
			rowsFrame(0, 1000, { value: (p) => (p % 150 === 7 ? 900 : p % 50 === 3 ? Number.NaN : 10 + (p % 5)) }),
		);
		rows.append(rowsFrame(1200, 1));
		const fit = percentiles(field(rows))!;
		expect(fit).toEqual({ lo: 10, hi: 14 });
	});

	test("a store with only position 0 gives no fit but a range", () => {
		const rows = new RowStore();
		rows.append(rowsFrame(0, 1));
		expect(percentiles(field(rows))).toBeNull();
		const range = new ScaleFit(metricInfo()).update(field(rows));
		expect(range.hi).toBeGreaterThan(range.lo);
	});

	test("a prompt and layers without numbers do not use up the sample", () => {
		const rows = new RowStore();
		// As the logit lens sends it: every ninth layer of 27, from the last prompt token on.
		const value = (p: number, _: number, l: number) => (p >= 3000 && l % 9 === 8 ? 4 : Number.NaN);
		rows.append(rowsFrame(0, 3005, { layers: 27, value }));
		expect(percentiles(field(rows))).toEqual({ lo: 4, hi: 4 });
	});

	test("numbers that are none give no fit", () => {
		const rows = new RowStore();
		rows.append(rowsFrame(0, 9, { value: () => Number.NaN }));
		expect(percentiles(field(rows))).toBeNull();
	});

	test("a diverging metric without ends gets a range symmetric around its middle", () => {
		const rows = new RowStore();
		const around = (mid: number) => metricInfo({ scale: { kind: "diverging", lo: null, hi: null, mid } });
		expect(new ScaleFit(around(0)).update(field(rows))).toEqual({ lo: -1, hi: 1 });
		rows.append(rowsFrame(0, 1, { value: () => 900 }));
		rows.append(rowsFrame(1, 200, { value: (p) => (p % 2 === 0 ? -3 : 1) }));
		const range = new ScaleFit(around(0)).update(field(rows));
		expect(range.lo).toBe(-range.hi);
		expect(range.hi).toBeGreaterThanOrEqual(3);
		expect(range.hi).toBeLessThan(6);
		const shifted = new ScaleFit(around(0.5)).update(field(rows));
		expect(shifted.hi - 0.5).toBeCloseTo(0.5 - shifted.lo, 9);
	});

	test("the range only grows, holds the data and seldom changes", () => {
		const random = chance(5);
		const rows = new RowStore();
		const fit = new ScaleFit(metricInfo());
		let range = fit.update(field(rows));
		let changes = 0;
		for (let p = 0; p < 600; p++) {
			rows.append(rowsFrame(p, 1, { value: () => 5 + random() * (1 + p / 100) }));
			const next = fit.update(field(rows));
			if (next !== range && p > 1) {
				changes++;
				expect(next.lo).toBeLessThanOrEqual(range.lo);
				expect(next.hi).toBeGreaterThanOrEqual(range.hi);
			}
			range = next;
		}
		const fitted = percentiles(field(rows))!;
		expect(range.lo).toBeLessThanOrEqual(fitted.lo);
		expect(range.hi).toBeGreaterThanOrEqual(fitted.hi);
		expect(changes).toBeLessThan(25);
		expect(fit.update(field(rows))).toBe(range);
	});

	test("numbers within the range cost no new fit; a share of them outside does", () => {
		const rows = new RowStore();
		const fit = new ScaleFit(metricInfo());
		rows.append(rowsFrame(0, 100, { value: (p) => 10 + (p % 5) }));
		const range = fit.update(field(rows));
		const fits = vi.spyOn(rows, "first");
		for (let p = 100; p < 1000; p++) {
			// One number in a thousand is far out, and stays in the tail.
			rows.append(rowsFrame(p, 1, { value: (_, __, l) => (p % 500 === 3 && l === 0 ? 99 : 10 + (p % 5)) }));
			expect(fit.update(field(rows))).toBe(range);
		}
		expect(fits.mock.calls.length).toBe(0);
		for (let p = 1000; p < 1050; p++) {
			rows.append(rowsFrame(p, 1, { value: () => 99 }));
			fit.update(field(rows));
		}
		expect(fit.update(field(rows)).hi).toBeGreaterThanOrEqual(99);
		expect(fits.mock.calls.length).toBeLessThan(15);
	});

	test("ends are round and a range that holds the fit stays the same object", () => {
		const range = grown(null, { lo: 0.313, hi: 7.92 });
		expect(range).toEqual({ lo: 0, hi: 8 });
		expect(grown(range, { lo: 1, hi: 5 })).toBe(range);
		expect(grown(range, { lo: 1, hi: 9.1 }).lo).toBe(0);
		const flat = grown(null, { lo: 3, hi: 3 });
		expect(flat.hi).toBeGreaterThanOrEqual(flat.lo);
	});
});

describe("place", () => {
	const range = { lo: 2, hi: 10 };
	test("is monotone, covers [0, 1] and clamps", () => {
		const metric = metricInfo();
		expect([1, 2, 6, 10, 11].map((v) => place(metric, range, v))).toEqual([0, 0, 0.5, 1, 1]);
	});
	test("a diverging scale has its middle in the middle and equal steps on both sides", () => {
		const metric = metricInfo({ scale: { kind: "diverging", lo: -0.2, hi: 1, mid: 0 } });
		const ends = { lo: -0.2, hi: 1 };
		expect(place(metric, ends, 0)).toBe(0.5);
		expect(place(metric, ends, 1)).toBe(1);
		expect(place(metric, ends, 0.2) - 0.5).toBeCloseTo(0.5 - place(metric, ends, -0.2), 9);
		expect(legendRange(metric, ends)).toEqual({ lo: -1, hi: 1 });
	});
});

describe("display", () => {
	const log = metricInfo({ transform: "log2", scale: { kind: "sequential", lo: 1, hi: 1024, mid: null } });
	test("undoes the transform", () => {
		expect(toDisplay(log, 10)).toBe(1024);
		expect(toDisplay(metricInfo(), 10)).toBe(10);
	});
	test("fixed ends are given in display units; an end that has no logarithm is fitted", () => {
		expect(fixedEnds(log)).toEqual({ lo: 0, hi: 10 });
		expect(fixedEnds({ ...log, scale: { ...log.scale, lo: 0 } })).toEqual({ lo: null, hi: 10 });
	});
	test("numbers read as people write them", () => {
		expect([0, 0.123456, 45.26, 999.4, 12345.6, 7.6e6, 0.0001, -3.14421].map(formatValue)).toEqual([
			"0",
			"0.123",
			"45.3",
			"999",
			"12,346",
			"7.60 M",
			"1.0e-4",
			"-3.14",
		]);
		expect([Number.NaN, Infinity, -Infinity].map(formatValue)).toEqual([
			"not a number",
			"too large",
			"too small",
		]);
	});
	test("probabilities are told in per cent", () => {
		expect([1, 0.5, 0.0123, 0.0004, 0, Number.NaN].map(formatShare)).toEqual([
			"100.0 %",
			"50.0 %",
			"1.2 %",
			"< 0.1 %",
			"0.0 %",
			"not known",
		]);
	});
});
