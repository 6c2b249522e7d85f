// The drawing functions against a fake 2D context that writes down what it is told.
import { beforeEach, describe, expect, test } from "vitest";
import { halfToNumber } from "../protocol/fp16";
import type { Run } from "../store/run";
import { Strip } from "../store/strip";
import { gapFrame, metricInfo, rowsFrame, startedFrame, testRun, tokensFrame } from "../testing";
import { MetricField } from "../testing/field";
import { Backing, coloursOf, TILE_COLUMNS, type Tile } from "./backing";
import { colourAt, DIVERGING, SEQUENTIAL } from "./colour";
import { drawMissing, drawStatic, type Ink } from "./draw";
import { columnX, layout, tailScroll, visibleColumns } from "./geometry";
import { Labels, readable } from "./labels";
import { drawOverlay } from "./overlay";
import { place } from "./scale";

interface Call {
	name: string;
	args: unknown[];
	fill: unknown;
}

/** Any method may be called; the ones that return something return what drawing code needs. */
function recorder(): { context: CanvasRenderingContext2D; calls: Call[] } {
	const calls: Call[] = [];
	const state: Record<string, unknown> = { fillStyle: "" };
	const context = new Proxy(state, {
		get(_, name: string) {
			if (name in state) return state[name];
			return (...args: unknown[]) => {
				calls.push({ name, args, fill: state.fillStyle });
				if (name === "measureText") return { width: String(args[0]).length * 6 };
				if (name === "createImageData") {
					const [width, height] = args as [number, number];
					return { width, height, data: new Uint8ClampedArray(width * height * 4) };
				}
				return undefined;
			};
		},
	});
	return { context: context as unknown as CanvasRenderingContext2D, calls };
}

const ink: Ink = {
	ground: "ground",
	panel: "panel",
	text: "text",
	muted: "muted",
	edge: "edge",
	signal: "signal",
	accent: "accent",
	hatch: "hatch",
	cached: "cached",
	font: "sans",
	mono: "mono",
};
const layers = 3;
const metric = metricInfo();
const range = { lo: 0, hi: 600 };
const colours = coloursOf(metric, range, SEQUENTIAL);
const g = layout({ width: 630, height: 300, ratio: 1 }, layers, 6);

let run: Run;
let labels: Labels;
let tiles: Call[];
let tilesOf: Call[][];
let backing: Backing;
beforeEach(() => {
	run = testRun();
	run.take(startedFrame(["a", "b"]), 0);
	tiles = [];
	tilesOf = [];
	labels = new Labels();
	backing = new Backing(new MetricField(run.rows, "norm"), (): Tile => {
		const { context, calls } = recorder();
		tiles = calls;
		tilesOf.push(calls);
		return { context, image: {} as CanvasImageSource };
	});
});

const puts = () => tiles.filter((call) => call.name === "putImageData");

describe("backing", () => {
	/** Have columns [from, to) coloured, as if they were in view. */
	const paint = (from: number, to: number) => {
		backing.mark(from, to);
		backing.blit(recorder().context, { ...g, plotWidth: to * g.cellWidth }, 0, to);
	};

	test("an append paints the new columns and no other", () => {
		backing.recolour(colours);
		run.take(rowsFrame(0, 5, { layers }), 0);
		paint(0, 5);
		run.take(rowsFrame(5, 2, { layers }), 0);
		paint(5, 7);
		// Of the image: left, top, width, height.
		expect(puts().map(({ args }) => args.slice(3))).toEqual([
			[0, 0, 5, layers],
			[5, 0, 2, layers],
		]);
	});

	test("each pixel is its cell's colour, layer 0 in the last line; unknown cells are transparent", () => {
		run.take(
			rowsFrame(0, 2, { layers, value: (p, _, l) => (p === 1 && l === 2 ? Number.NaN : 100 * (p + l)) }),
			0,
		);
		run.take(rowsFrame(3, 1, { layers, value: () => 600 }), 0);
		backing.recolour(colours);
		paint(0, 4);
		const image = puts()[0]!.args[0] as ImageData;
		const pixel = (p: number, l: number) => {
			const at = 4 * ((layers - 1 - l) * TILE_COLUMNS + p);
			return [...image.data.slice(at, at + 4)];
		};
		for (const [p, l] of [
			[0, 0],
			[0, 2],
			[1, 1],
			[3, 0],
		] as const) {
			const sent = run.rows.value("norm", p, l)!;
			expect(pixel(p, l)).toEqual([...colourAt(SEQUENTIAL, place(metric, range, sent)), 255]);
		}
		expect(pixel(1, 2)[3]).toBe(0);
		for (let l = 0; l < layers; l++) expect(pixel(2, l)[3]).toBe(0);
	});

	test("what is out of view gets its colours when it comes into view, and then the newest", () => {
		const total = 3 * TILE_COLUMNS;
		run.take(rowsFrame(0, total, { layers }), 0);
		backing.recolour(colours);
		const seen = (position: number) => backing.blit(recorder().context, g, position * g.cellWidth, total);
		seen(0);
		expect(puts().length).toBe(0);
		expect(tilesOf.map((tile) => tile.filter(({ name }) => name === "putImageData").length)).toEqual([
			1, 0, 0,
		]);
		backing.recolour(coloursOf(metric, { lo: 0, hi: 1 }, SEQUENTIAL));
		seen(2 * TILE_COLUMNS);
		seen(2 * TILE_COLUMNS);
		expect(tilesOf.map((tile) => tile.filter(({ name }) => name === "putImageData").length)).toEqual([
			1, 0, 1,
		]);
	});

	test("the table of colours says for every half float what the scale says of its number", () => {
		for (const kind of ["sequential", "diverging"] as const) {
			const one = metricInfo({ scale: { kind, lo: null, hi: null, mid: kind === "diverging" ? 1 : null } });
			const table = kind === "diverging" ? DIVERGING.dark : SEQUENTIAL;
			const bytes = new Uint8Array(coloursOf(one, { lo: -2, hi: 5 }, table).buffer);
			for (let code = 0; code < 65536; code += 7) {
				const value = halfToNumber(code);
				const colour = Number.isFinite(value)
					? [...colourAt(table, place(one, { lo: -2, hi: 5 }, value)), 255]
					: [0, 0, 0, 0];
				expect([...bytes.subarray(4 * code, 4 * code + 4)]).toEqual(colour);
			}
		}
	});

	test("long runs are cut into tiles and a blit touches only those in view", () => {
		const total = TILE_COLUMNS * 3 + 10;
		run.take(rowsFrame(0, total, { layers }), 0);
		backing.recolour(colours);
		const { context, calls } = recorder();
		const scroll = TILE_COLUMNS * g.cellWidth - 60;
		backing.blit(context, g, scroll, total);
		const { from, to } = visibleColumns(g, scroll, total);
		expect(calls.map((call) => [call.args[1], call.args[3]])).toEqual([
			[from, TILE_COLUMNS - from],
			[0, to - TILE_COLUMNS],
		]);
		for (const { args } of calls) {
			expect(args[7]).toBe((args[3] as number) * g.cellWidth);
			expect(args[8]).toBe(layers * g.cellHeight);
			expect(Number.isInteger(args[5])).toBe(true);
		}
	});
});

describe("static canvas", () => {
	test("what has no row is hatched in one stretch, and nothing else is", () => {
		run.take(tokensFrame(2, ["c", "d", "e", "f", "g", "h"]), 0);
		run.take(rowsFrame(0, 3, { layers }), 0);
		run.take(rowsFrame(6, 1, { layers }), 0);
		const { context, calls } = recorder();
		drawMissing(context, g, 0, new Strip(run), ink);
		const hatched = calls.filter((call) => call.fill === "hatch").map((call) => call.args);
		expect(hatched).toEqual([
			[columnX(g, 0, 3), g.top, 3 * g.cellWidth, g.plotHeight],
			[columnX(g, 0, 7), g.top, g.cellWidth, g.plotHeight],
		]);
	});

	test("what was not computed is dotted, and no more when its row has come", () => {
		run.take(tokensFrame(2, new Array(4).fill("x")), 0);
		run.take(gapFrame(0, 3, { cached: true }), 0);
		run.take(rowsFrame(1, 1, { layers }), 0);
		run.take(rowsFrame(4, 1, { layers }), 0);
		const { context, calls } = recorder();
		drawMissing(context, g, 0, new Strip(run), ink);
		const of = (fill: string) =>
			calls.filter((call) => call.fill === fill).map(({ args }) => [args[0], Number(args[2]) / g.cellWidth]);
		expect(of("cached")).toEqual([
			[columnX(g, 0, 0), 1],
			[columnX(g, 0, 2), 1],
		]);
		expect(of("hatch")).toEqual([
			[columnX(g, 0, 3), 1],
			[columnX(g, 0, 5), 1],
		]);
	});

	test("the price of a frame does not grow with the run", () => {
		const count = (tokens: number) => {
			const one = testRun();
			one.take(startedFrame(["a", "b"]), 0);
			one.take(tokensFrame(2, new Array(tokens).fill("x")), 0);
			one.take(rowsFrame(0, tokens, { layers }), 0);
			const map = new Backing(new MetricField(one.rows, "norm"), () => ({
				context: recorder().context,
				image: {} as CanvasImageSource,
			}));
			map.recolour(colours);
			const { context, calls } = recorder();
			drawStatic(context, g, tailScroll(g, one.tokens.length), new Strip(one), map, ink, labels);
			return calls.length;
		};
		expect(count(3000)).toBeLessThanOrEqual(count(300) + 20);
	});

	test("prompt and reply are named, and numbers stand for narrow columns", () => {
		run.take(tokensFrame(2, new Array(60).fill("word")), 0);
		const { context, calls } = recorder();
		drawStatic(context, g, 0, new Strip(run), null, ink, labels);
		const texts = calls.filter((call) => call.name === "fillText").map((call) => call.args[0]);
		expect(texts).toContain("reply");
		expect(texts).toContain("10");
		expect(texts).not.toContain("word");
	});

	test("wide columns carry their token's text, white space made visible", () => {
		run.take(tokensFrame(2, [" hi", "\n"]), 0);
		const wide = layout({ width: 630, height: 300, ratio: 1 }, layers, 18);
		const { context, calls } = recorder();
		drawStatic(context, wide, 0, new Strip(run), null, ink, labels);
		const texts = calls.filter((call) => call.name === "fillText").map((call) => call.args[0]);
		expect(texts).toContain("\u00b7hi");
		expect(texts).toContain("\u23ce");
		expect(readable("a\tb")).toBe("a\u21e5b");
	});

	test("a token's text is measured once, and again when its room changes", () => {
		run.take(tokensFrame(2, [" city", " light"]), 0);
		const measured = (height: number) => {
			const wide = layout({ width: 630, height, ratio: 1 }, layers, 18);
			const { context, calls } = recorder();
			drawStatic(context, wide, 0, new Strip(run), null, ink, labels);
			return calls.filter((call) => call.name === "measureText" && /city|light/.test(`${call.args[0]}`))
				.length;
		};
		expect([measured(300), measured(300), measured(301)]).toEqual([2, 0, 2]);
	});

	test("without a run only the layers are named", () => {
		const { context, calls } = recorder();
		drawStatic(context, g, 0, null, null, ink, labels);
		expect(calls.filter((call) => call.name === "fillText").map((call) => call.args[0])).toEqual([
			"0",
			"1",
			"2",
		]);
	});
});

describe("overlay", () => {
	test("a revision line stands at the left edge of its first column, with what it changed", () => {
		const { context, calls } = recorder();
		drawOverlay(context, g, 0, 50, [{ text: "French 0.25", position: 20 }], null, ink);
		const line = calls.find((call) => call.name === "fillRect" && call.fill === "signal")!;
		expect(line.args[0]).toBe(columnX(g, 0, 20) - 1);
		expect(calls.find((call) => call.name === "fillText")!.args[0]).toBe("French 0.25");
	});

	test("lines out of view are not drawn, and crowded labels give way to the newest", () => {
		const { context, calls } = recorder();
		const crowd = [2, 21, 22, 23].map((position, i) => ({ text: `Joy ${i + 1}`, position }));
		drawOverlay(context, g, 15 * g.cellWidth, 200, crowd, null, ink);
		expect(calls.filter((call) => call.name === "fillText").map((call) => call.args[0])).toEqual(["Joy 4"]);
		expect(calls.filter((call) => call.fill === "signal" && call.args[2] === 2).length).toBe(3);
	});

	test("a cursor beyond the tokens draws nothing", () => {
		const { context, calls } = recorder();
		drawOverlay(context, g, 0, 5, [], { position: 5, layer: 0 }, ink);
		expect(calls.some((call) => call.name === "fillRect")).toBe(false);
		drawOverlay(context, g, 0, 5, [], { position: 4, layer: 0 }, ink);
		expect(calls.some((call) => call.name === "fillRect")).toBe(true);
	});
});
