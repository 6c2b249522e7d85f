// What the painter colours, seen at the tiles that it writes into.
import { beforeEach, describe, expect, test } from "vitest";
import type { MetricInfo } from "../protocol/types.gen";
import type { Run } from "../store/run";
import { metricInfo, rowsFrame, startedFrame, testRun } from "../testing";
import { MetricField } from "../testing/field";
import type { Tile } from "./backing";
import { DIVERGING, SEQUENTIAL } from "./colour";
import { layout } from "./geometry";
import { type Drawn, Painter } from "./painter";
import type { Range } from "./scale";

const fixed = metricInfo({ scale: { kind: "sequential", lo: 0, hi: 600, mid: null } });

let run: Run;
let painter: Painter;
/** Columns as they were written: the first, and how many. */
let written: [number, number][];
let told: (Drawn | null)[];

beforeEach(() => {
	[written, told] = [[], []];
	fields.clear();
	run = testRun();
	run.take(startedFrame(["a"]), 0);
	const tile: Tile = {
		context: {
			createImageData: (width, height) =>
				({ width, height, data: new Uint8ClampedArray(4 * width * height) }) as ImageData,
			putImageData: (_image, _x, _y, from, _top, width) => written.push([from, width]),
		},
		image: {} as CanvasImageSource,
	};
	painter = new Painter(
		(drawn) => told.push(drawn),
		() => tile,
	);
});

/** Paint what is new, with so many columns in view. */
function update(columns = 100) {
	const g = layout({ width: 100 * 6 + 30, height: 300, ratio: 1 }, 2, 6);
	const backing = painter.update();
	backing?.blit({ drawImage: () => {} }, g, 0, columns);
	return backing;
}

/** One field for each metric, as the view has it. */
const fields = new Map<string, MetricField>();

function show(metric: MetricInfo, dark = false, range: Range | null = null) {
	const field = fields.get(metric.id) ?? new MetricField(run.rows, metric.id);
	fields.set(metric.id, field);
	painter.show({ field, metric, range, dark });
}

describe("Painter", () => {
	test("colours each column once, when its row has come", () => {
		show(fixed, false);
		run.take(rowsFrame(0, 5), 0);
		update();
		run.take(rowsFrame(5, 2), 0);
		run.take(rowsFrame(7, 1), 0);
		update();
		update();
		expect(written).toEqual([
			[0, 5],
			[5, 3],
		]);
		expect(told).toEqual([{ range: { lo: 0, hi: 600 }, table: SEQUENTIAL }]);
	});

	test("colours all of it anew when the scale grows, and says so", () => {
		show(metricInfo(), false);
		run.take(rowsFrame(0, 4, { value: () => 3 }), 0);
		update();
		run.take(rowsFrame(4, 4, { value: () => 90 }), 0);
		update();
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
			show(metric, dark);
			update();
		}
		expect(told.map((drawn) => drawn!.table)).toEqual([DIVERGING.light, DIVERGING.dark]);
		expect(told[1]!.range).toBe(told[0]!.range);
	});

	test("a range that was set stays whatever comes, and setting another recolours what is in view", () => {
		const set = { lo: 0, hi: 4 };
		show(metricInfo(), false, set);
		run.take(rowsFrame(0, 4, { value: () => 90 }), 0);
		update();
		show(metricInfo(), false, { lo: 0, hi: 100 });
		update();
		show(metricInfo());
		update();
		expect(written).toEqual([
			[0, 4],
			[0, 4],
			[0, 4],
		]);
		expect(told.map((drawn) => drawn!.range.hi)).toEqual([4, 100, 91]);
	});

	test("has nothing for a metric that the run is not watched with, and says that once", () => {
		show(fixed, false);
		run.take(rowsFrame(0, 1), 0);
		expect(update()).not.toBeNull();
		show(metricInfo({ id: "other" }), false);
		expect([update(), update()]).toEqual([null, null]);
		expect(told.slice(1)).toEqual([null]);
	});

	test("draws nothing of numbers on the shelf, and all of it on the same scale when they are back", () => {
		show(metricInfo());
		run.take(rowsFrame(0, 4, { value: () => 90 }), 0);
		update();
		const part = run.rows.part(0);
		run.rows.shelve(0);
		run.take(rowsFrame(4, 1, { value: () => 500 }), 0);
		expect([update(), update()]).toEqual([null, null]);
		expect([written, told.at(-1)]).toEqual([[[0, 4]], null]);
		run.rows.bring(0, part);
		expect(update()).not.toBeNull();
		expect(written).toEqual([
			[0, 4],
			[0, 5],
		]);
		expect(told[2]!.range.hi).toBeGreaterThanOrEqual(500);
	});
});
