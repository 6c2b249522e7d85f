import { describe, expect, test } from "vitest";
import { chance, rowsFrame } from "../testing";
import { MetricField } from "../testing/field";
import { DifferenceField, meanOf, RelativeField, usualOf } from "./derived";
import { valueAt } from "./field";
import { CHUNK, RowStore } from "./rows";

const LAYERS = 3;

function store(): { rows: RowStore; field: MetricField } {
	const rows = new RowStore();
	return { rows, field: new MetricField(rows, "norm") };
}

describe("a difference", () => {
	test("is there where both have a number, however their rows come", () => {
		const random = chance(11);
		const [one, other] = [store(), store()];
		const difference = new DifferenceField(one.field, other.field);
		expect([difference.empty, difference.first]).toEqual([true, null]);
		const total = 2 * CHUNK + 40;
		for (let round = 0; round < 60; round++) {
			const { rows } = random() < 0.5 ? one : other;
			const start = Math.floor(random() * total);
			const mark = rows === one.rows ? 8 : 2;
			const value = (p: number, _: number, l: number) =>
				l === 2 && p % 5 === 0 ? Number.NaN : mark + (p % 8) * l;
			rows.append(rowsFrame(start, Math.min(30, total - start), { layers: LAYERS, value }));
			difference.sync();
			if (round % 7 === 0) for (let index = 0; index < 3; index++) difference.chunk(index);
		}
		let wrong = 0;
		for (let p = 0; p < total; p++) {
			for (let l = 0; l < LAYERS; l++) {
				const wanted = valueAt(one.field, p, l) - valueAt(other.field, p, l);
				if (!Object.is(valueAt(difference, p, l), wanted)) wrong++;
			}
		}
		expect([wrong, difference.empty, difference.layers]).toEqual([0, false, LAYERS]);
		expect(difference.first).toBeGreaterThan(0);
	});

	test("pairs positions as an alignment says", () => {
		const [one, other] = [store(), store()];
		// The other run has three tokens more in front.
		const alignment = {
			toOther: (position: number) => position + 3,
			toOne: (position: number) => (position < 3 ? null : position - 3),
		};
		const difference = new DifferenceField(one.field, other.field, alignment);
		one.rows.append(rowsFrame(0, 6, { value: (p) => 100 + p }));
		difference.sync();
		expect(valueAt(difference, 1, 0)).toBeNaN();
		other.rows.append(rowsFrame(0, 7, { value: (p) => p }));
		difference.sync();
		expect([0, 1, 3, 4].map((p) => valueAt(difference, p, 0))).toEqual([97, 97, 97, Number.NaN]);
		expect(difference.changes.at(-1)).toEqual({ start: 0, end: 4 });
	});

	test("of models with other layers there is none", () => {
		const [one, other] = [store(), store()];
		one.rows.append(rowsFrame(0, 2, { layers: 2 }));
		other.rows.append(rowsFrame(0, 2, { layers: 3 }));
		expect(new DifferenceField(one.field, other.field).empty).toBe(true);
	});
});

describe("against what is usual", () => {
	test("each layer is compared with its own median, without position 0", () => {
		const { rows, field } = store();
		const value = (p: number, _: number, l: number) => (p === 0 ? 9999 : 10 * l + (p === 3 ? 50 : p % 3));
		rows.append(rowsFrame(0, 8, { layers: LAYERS, value }));
		const usual = usualOf(field);
		expect([...usual]).toEqual([1, 11, 21]);
		const relative = new RelativeField(field, usual);
		relative.sync();
		expect([1, 2, 3].map((p) => valueAt(relative, p, 1))).toEqual([0, 1, 49]);
		rows.append(rowsFrame(8, 1, { layers: LAYERS, value: () => 31 }));
		relative.sync();
		expect([valueAt(relative, 8, 2), relative.columns, relative.first]).toEqual([10, 9, 1]);
	});

	test("a stretch has a mean, and a layer without numbers none", () => {
		const { rows, field } = store();
		rows.append(rowsFrame(0, 6, { value: (p, _, l) => (l === 1 ? Number.NaN : p) }));
		expect([...meanOf(field, 2, 5)]).toEqual([3, Number.NaN]);
		const relative = new RelativeField(field, meanOf(field, 2, 5));
		expect([valueAt(relative, 5, 0), valueAt(relative, 5, 1)]).toEqual([2, Number.NaN]);
		// Made for another model's layers: nothing to draw.
		expect(new RelativeField(field, new Float32Array(7)).empty).toBe(true);
	});
});
