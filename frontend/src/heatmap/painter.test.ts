// What the painter colours, seen at the tiles that it writes into.
import { beforeEach, describe, expect, test } from "vitest";
import type { RunState } from "../store/run";
import { metricInfo, rowsFrame, startedFrame, testRun } from "../testing";
import type { Tile } from "./backing";
import { DIVERGING, SEQUENTIAL } from "./colour";
import { type Drawn, Painter } from "./painter";

const fixed = metricInfo({ scale: { kind: "sequential", lo: 0, hi: 600, mid: null } });

let run: RunState;
let painter: Painter;
/** Columns as they were written: the first, and how many. */
let written: [number, number][];
let told: (Drawn | null)[];

beforeEach(() => {
	[written, told] = [[], []];
	run = testRun();
	run.take(startedFrame(["a"]), 0);
	const tile: Tile = {
		context: {
			createImageData: (width, height) =>
				({ width, height, data: new Uint8ClampedArray(4 * width * height) }) as ImageData,
			putImageData: (image, x) => written.push([x, image.width]),
			clearRect: () => {},
		},
		image: {} as CanvasImageSource,
	};
	painter = new Painter(
		(drawn) => told.push(drawn),
		() => tile,
	);
});

describe("Painter", () => {
	test("colours each column once, when its row has come", () => {
		painter.show(run, fixed, false);
		run.take(rowsFrame(0, 5), 0);
		painter.update();
		run.take(rowsFrame(5, 2), 0);
		run.take(rowsFrame(7, 1), 0);
		painter.update();
		painter.update();
		expect(written).toEqual([
			[0, 5],
			[5, 2],
			[7, 1],
		]);
		expect(told).toEqual([{ range: { lo: 0, hi: 600 }, table: SEQUENTIAL }]);
	});

	test("colours all of it anew when the scale grows, and says so", () => {
		painter.show(run, metricInfo(), false);
		run.take(rowsFrame(0, 4, { value: () => 3 }), 0);
		painter.update();
		run.take(rowsFrame(4, 4, { value: () => 90 }), 0);
		painter.update();
		expect(written).toEqual([
			[0, 4],
			[0, 8],
		]);
		expect(told.length).toBe(2);
		expect(told[1]!.range.hi).toBeGreaterThanOrEqual(90);
	});

	test("another theme has other colours on the same scale", () => {
		const metric = metricInfo({ scale: { kind: "diverging", lo: -1, hi: 1, mid: 0 } });
		run.take(rowsFrame(0, 2), 0);
		for (const dark of [false, true]) {
			painter.show(run, metric, dark);
			painter.update();
		}
		expect(told.map((drawn) => drawn!.table)).toEqual([DIVERGING.light, DIVERGING.dark]);
		expect(told[1]!.range).toBe(told[0]!.range);
	});

	test("has nothing for a metric that the run is not watched with, and says that once", () => {
		painter.show(run, fixed, false);
		run.take(rowsFrame(0, 1), 0);
		expect(painter.update()).not.toBeNull();
		painter.show(run, metricInfo({ id: "other" }), false);
		expect([painter.update(), painter.update()]).toEqual([null, null]);
		expect(told.slice(1)).toEqual([null]);
	});
});
