import { expect, test } from "vitest";
import { rowsFrame } from "../testing";
import { chosenExperts } from "./experts";
import { RowStore } from "./rows";

/** Two experts are chosen for each token: at position p the p-th of three and the next; layer 0 has none. */
const METRICS = ["expert:1", "expert_weight:1", "expert:2", "expert_weight:2"];
const frame = (start: number, count: number) =>
	rowsFrame(start, count, {
		metrics: METRICS,
		value: (position, metric, layer) =>
			layer === 0 ? Number.NaN : [position % 3, 0.75, (position + 1) % 3, 0.25][metric]!,
	});

test("the chosen experts have their weights, and what they do in the whole run", () => {
	const rows = new RowStore();
	rows.append(frame(0, 4));
	expect(chosenExperts(rows, 2, 1)).toEqual([
		{ expert: 2, weight: 0.75, load: 0.5 },
		{ expert: 0, weight: 0.25, load: 0.75 },
	]);
	expect(chosenExperts(rows, 2, 0)).toBeNull();
	expect(chosenExperts(rows, 9, 1)).toBeNull();
});

test("rows that come later are counted, wherever they belong, and a hole is not", () => {
	const rows = new RowStore();
	rows.append(frame(3, 1));
	expect(chosenExperts(rows, 3, 1)).toEqual([
		{ expert: 0, weight: 0.75, load: 1 },
		{ expert: 1, weight: 0.25, load: 1 },
	]);
	rows.append(frame(0, 2));
	expect(chosenExperts(rows, 3, 1)!.map(({ load }) => load)).toEqual([2 / 3, 1]);
});

test("a run that was not watched with them has none", () => {
	const rows = new RowStore();
	rows.append(rowsFrame(0, 2));
	expect(chosenExperts(rows, 1, 1)).toBeNull();
});

test("while the numbers lie on the shelf none are told, and none are counted", () => {
	const rows = new RowStore();
	rows.append(frame(0, 4));
	const part = rows.part(0);
	rows.shelve(0);
	expect(chosenExperts(rows, 2, 1)).toBeNull();
	rows.bring(0, part);
	expect(chosenExperts(rows, 2, 1)![0]).toEqual({ expert: 2, weight: 0.75, load: 0.5 });
});
