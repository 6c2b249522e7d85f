import { describe, expect, test } from "vitest";
import { chance } from "../testing";
import {
	beside,
	COLUMN_WIDTHS,
	cellAt,
	columnX,
	contentWidth,
	layerY,
	layout,
	namedLayers,
	scrollTo,
	tailScroll,
	visibleColumns,
} from "./geometry";

const sizes = [
	{ width: 900, height: 500, ratio: 1 },
	{ width: 1125, height: 611, ratio: 1.25 },
	{ width: 780, height: 640, ratio: 2 },
	{ width: 1133, height: 377, ratio: 1.1 },
];

describe("geometry", () => {
	test("every length is a whole number of device pixels and the plot fits", () => {
		for (const size of sizes) {
			for (const width of COLUMN_WIDTHS) {
				for (const layers of [1, 12, 30, 80, 126]) {
					const g = layout(size, layers, width);
					for (const value of [g.left, g.top, g.cellWidth, g.cellHeight, g.plotHeight, g.plotWidth]) {
						expect(Number.isInteger(value)).toBe(true);
						expect(value).toBeGreaterThan(0);
					}
					expect(g.top + g.plotHeight).toBeLessThanOrEqual(g.height);
				}
			}
		}
	});

	test("every pixel of a cell hits that cell, at any scroll", () => {
		const random = chance(1);
		for (let i = 0; i < 3000; i++) {
			const g = layout(sizes[i % sizes.length]!, 1 + Math.floor(random() * 60), COLUMN_WIDTHS[i % 7]!);
			const tokens = 1 + Math.floor(random() * 3000);
			const scroll = Math.floor(random() * (tailScroll(g, tokens) + 1));
			const { from, to } = visibleColumns(g, scroll, tokens);
			const position = from + Math.floor(random() * (to - from));
			const layer = Math.floor(random() * g.layers);
			const x = columnX(g, scroll, position) + Math.floor(random() * g.cellWidth);
			const y = layerY(g, layer) + Math.floor(random() * g.cellHeight);
			if (x < g.left || x >= g.width) continue;
			expect(cellAt(g, scroll, tokens, x, y)).toEqual({ position, layer });
		}
	});

	test("outside the cells nothing is hit", () => {
		const g = layout(sizes[0]!, 10, 9);
		expect(cellAt(g, 0, 5, g.left - 1, g.top)).toBeNull();
		expect(cellAt(g, 0, 5, g.left, g.top - 1)).toBeNull();
		expect(cellAt(g, 0, 5, g.left, g.top + g.plotHeight)).toBeNull();
		expect(cellAt(g, 0, 5, g.left + 5 * g.cellWidth, g.top)).toBeNull();
		expect(cellAt(g, 0, 5, g.width, g.top)).toBeNull();
	});

	test("layer 0 is at the bottom", () => {
		const g = layout(sizes[0]!, 10, 9);
		expect(layerY(g, 0) + g.cellHeight).toBe(g.top + g.plotHeight);
		expect(layerY(g, 9)).toBe(g.top);
	});

	test("visible columns are exactly those with a pixel in view", () => {
		const g = layout(sizes[0]!, 10, 9);
		for (const scroll of [0, 1, 8, 9, 10, 500]) {
			const { from, to } = visibleColumns(g, scroll, 1000);
			expect(columnX(g, scroll, from) + g.cellWidth).toBeGreaterThan(g.left);
			expect(columnX(g, scroll, from)).toBeLessThanOrEqual(g.left);
			expect(columnX(g, scroll, to - 1)).toBeLessThan(g.width);
			expect(columnX(g, scroll, to)).toBeGreaterThanOrEqual(g.width);
		}
		expect(visibleColumns(g, 0, 3)).toEqual({ from: 0, to: 3 });
		expect(visibleColumns(g, 0, 0)).toEqual({ from: 0, to: 0 });
	});

	test("at the tail the last column is in view; short content does not scroll", () => {
		const g = layout(sizes[0]!, 10, 9);
		expect(visibleColumns(g, tailScroll(g, 1000), 1000).to).toBe(1000);
		expect(tailScroll(g, 3)).toBe(0);
		expect(tailScroll(g, 1000)).toBe(contentWidth(g, 1000) - g.plotWidth);
	});

	test("revealing a column brings it whole into view and moves no further than needed", () => {
		const random = chance(2);
		const g = layout(sizes[0]!, 10, 9);
		for (let i = 0; i < 500; i++) {
			const position = Math.floor(random() * 1000);
			const before = Math.floor(random() * tailScroll(g, 1000));
			const scroll = scrollTo(g, before, position, 1000);
			expect(columnX(g, scroll, position)).toBeGreaterThanOrEqual(g.left);
			expect(columnX(g, scroll, position) + g.cellWidth).toBeLessThanOrEqual(g.width);
			expect(scrollTo(g, scroll, position, 1000)).toBe(scroll);
		}
	});

	test("layer labels never touch, and the last layer has one", () => {
		for (const layers of [6, 30, 80, 126]) {
			const g = layout(sizes[0]!, layers, 9);
			const named = namedLayers(g, 14);
			expect(named.at(-1)).toBe(g.layers - 1);
			for (let index = 1; index < named.length; index++) {
				expect((named[index]! - named[index - 1]!) * g.cellHeight).toBeGreaterThanOrEqual(14);
			}
		}
	});
});

describe("a box beside a cell", () => {
	const bounds = { left: -100, top: -50, right: 300, bottom: 250 };
	const box = { width: 120, height: 80 };
	const cell = (x: number, y: number) => ({ x, y, width: 10, height: 6 });
	test("stands to the right, and to the left where there is no room", () => {
		expect(beside(cell(50, 40), box, bounds)).toEqual({ left: 68, top: 32 });
		expect(beside(cell(200, 40), box, bounds)).toEqual({ left: 72, top: 32 });
	});
	test("stands above or below in a window that is narrow", () => {
		const narrow = { ...bounds, left: 0, right: 150 };
		expect(beside(cell(70, 60), box, narrow)).toEqual({ left: 30, top: -28 });
		expect(beside(cell(70, 20), box, narrow)).toEqual({ left: 30, top: 34 });
	});
	test("is inside the window wherever the cell is, from its start on when it is larger", () => {
		for (let x = -100; x < 300; x += 7) {
			for (let y = -50; y < 250; y += 7) {
				for (const width of [60, 180, 260, 390]) {
					const { left, top } = beside(cell(x, y), { width, height: 200 }, bounds);
					expect(left).toBeGreaterThanOrEqual(bounds.left);
					expect(top).toBeGreaterThanOrEqual(bounds.top);
					expect(left + width).toBeLessThanOrEqual(bounds.right);
					expect(top + 200).toBeLessThanOrEqual(bounds.bottom);
				}
			}
		}
		expect(beside(cell(0, 0), { width: 900, height: 900 }, bounds)).toEqual({ left: -100, top: -50 });
	});
});
