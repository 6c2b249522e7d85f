import { beforeEach, describe, expect, test } from "vitest";
import { NO_NUMBER } from "../protocol/fp16";
import { chance, rowsFrame } from "../testing";
import { CHUNK, NO_ROW, type Part, RowStore } from "./rows";

describe("RowStore", () => {
	test("keeps each number at its metric, position and layer", () => {
		const store = new RowStore();
		store.append(rowsFrame(0, 3, { layers: 4, metrics: ["a", "b"] }));
		store.append(rowsFrame(3, 2, { layers: 4, metrics: ["a", "b"] }));
		for (let p = 0; p < 5; p++) {
			for (let l = 0; l < 4; l++) {
				expect(store.value("a", p, l)).toBeCloseTo(p + l / 16, 2);
				expect(store.value("b", p, l)).toBeCloseTo(p + 0.25 + l / 16, 2);
			}
		}
		expect(store.columns).toBe(5);
		expect(store.received).toBe(5);
		expect(store.value("a", 5, 0)).toBeUndefined();
		expect(store.value("a", 0, 4)).toBeUndefined();
		expect(store.value("c", 0, 0)).toBeUndefined();
	});

	test("a hole is no row and no zeros", () => {
		const store = new RowStore();
		store.append(rowsFrame(0, 2));
		store.append(rowsFrame(5, 1));
		expect(store.columns).toBe(6);
		expect(store.received).toBe(3);
		for (const p of [2, 3, 4, 6, -1]) {
			expect(store.has(p)).toBe(false);
			expect(store.rev(p)).toBe(NO_ROW);
			expect(store.value("norm", p, 0)).toBeUndefined();
		}
		expect(store.chunk("norm", 0)![3 * 2]).toBe(NO_NUMBER);
	});

	test("numbers lie in chunks, which are there only where rows are and never move", () => {
		const store = new RowStore();
		store.append(rowsFrame(3 * CHUNK - 1, 2, { value: (p) => p % 7 }));
		expect([0, 1, 2, 3, 4].map((index) => store.chunk("norm", index)?.length)).toEqual([
			undefined,
			undefined,
			2 * CHUNK,
			2 * CHUNK,
			undefined,
		]);
		const before = store.chunk("norm", 3);
		store.append(rowsFrame(0, 4 * CHUNK));
		expect(store.chunk("norm", 3)).toBe(before);
		expect(store.value("norm", 5, 0)).toBe(5);
		expect(store.size).toBeGreaterThanOrEqual(4 * CHUNK * 2 * 2);
	});

	test("a metric that some rows lack has no number there", () => {
		const store = new RowStore();
		store.append(rowsFrame(0, 1, { metrics: ["a"] }));
		store.append(rowsFrame(1, 1, { metrics: ["a", "b"] }));
		expect(Number.isNaN(store.value("b", 0, 0))).toBe(true);
		expect(store.value("b", 1, 0)).toBeCloseTo(1.25, 2);
	});

	test("rows with another number of layers are refused with a sentence", () => {
		const store = new RowStore();
		store.append(rowsFrame(0, 1, { layers: 2 }));
		expect(() => store.append(rowsFrame(1, 1, { layers: 3 }))).toThrow(
			"Rows with 3 layers came after rows with 2.",
		);
	});

	test("boundaries stand where the revision changed, holes between or not", () => {
		const store = new RowStore();
		store.append(rowsFrame(0, 4));
		expect(store.boundaries()).toEqual([]);
		store.append(rowsFrame(4, 3, { rev: () => 1 }));
		store.append(rowsFrame(9, 1, { rev: () => 1 }));
		store.append(rowsFrame(10, 2, { rev: (p) => (p === 10 ? 4 : 6) }));
		expect(store.boundaries()).toEqual([
			{ rev: 1, position: 4 },
			{ rev: 4, position: 10 },
			{ rev: 6, position: 11 },
		]);
		store.append(rowsFrame(7, 2, { rev: () => 2 }));
		expect(store.boundaries()).toEqual([
			{ rev: 1, position: 4 },
			{ rev: 2, position: 7 },
			{ rev: 1, position: 9 },
			{ rev: 4, position: 10 },
			{ rev: 6, position: 11 },
		]);
	});

	test("however rows are cut, doubled and shuffled, the store ends the same", () => {
		const random = chance(7);
		const total = 900;
		const rev = (p: number) => Math.floor(p / 111);
		const whole = new RowStore();
		whole.append(rowsFrame(0, total, { layers: 3, metrics: ["a", "b"], rev }));
		for (let round = 0; round < 8; round++) {
			const pieces: [number, number][] = [];
			for (let start = 0; start < total; ) {
				const count = Math.min(total - start, 1 + Math.floor(random() * 60));
				pieces.push([start, count]);
				if (random() < 0.2) pieces.push([start, count]);
				start += count;
			}
			pieces.sort(() => random() - 0.5);
			const store = new RowStore();
			for (const [start, count] of pieces) {
				store.append(rowsFrame(start, count, { layers: 3, metrics: ["a", "b"], rev }));
				if (random() < 0.3) store.boundaries();
			}
			expect(store.received).toBe(total);
			expect(store.boundaries()).toEqual(whole.boundaries());
			for (const metric of ["a", "b"]) {
				for (const index of [0, 1, 2]) {
					expect(store.chunk(metric, index)).toEqual(whole.chunk(metric, index));
				}
			}
		}
	});

	test("entropies stand at their rows; what is none or did not come is null", () => {
		const store = new RowStore();
		store.append(rowsFrame(0, 1));
		store.append(rowsFrame(1, 2, { entropy: (p) => (p === 1 ? Number.NaN : 0.5) }));
		store.append(rowsFrame(300, 1, { entropy: () => 2, metrics: [] }));
		expect([-1, 0, 1, 2, 3, 300, 301].map((p) => store.entropy(p))).toEqual([
			null,
			null,
			null,
			0.5,
			null,
			2,
			null,
		]);
	});

	test("knows where a metric's numbers begin, position 0 and NaN not counted", () => {
		const store = new RowStore();
		const value = (p: number, m: number, l: number) => (m === 1 && (p < 6 || l === 0) ? Number.NaN : 1);
		store.append(rowsFrame(0, 5, { metrics: ["a", "b"], value }));
		expect([store.first("a"), store.first("b"), store.first("c")]).toEqual([1, null, null]);
		store.append(rowsFrame(8, 2, { metrics: ["a", "b"], value }));
		store.append(rowsFrame(5, 3, { metrics: ["a", "b"], value }));
		expect(store.first("b")).toBe(6);
	});

	test("rows that hold other than they say are refused, and nothing is allocated for them", () => {
		const store = new RowStore();
		const short = { ...rowsFrame(0, 1), layers: 1_000_000_000 };
		expect(() => store.append(short)).toThrow("Rows of 1 positions hold 2 numbers, not 1000000000.");
		expect([store.layers, store.columns, store.chunk("norm", 0)]).toEqual([0, 0, undefined]);
		expect(() => store.append({ ...rowsFrame(0, 2), revs: [0] })).toThrow(/hold 1 revisions/);
		expect(() => store.append(rowsFrame(0, 2, { entropy: () => 1 }))).not.toThrow();
		const entropy = new Uint8Array(2);
		expect(() => store.append({ ...rowsFrame(0, 2), entropy })).toThrow(/hold 1 entropies/);
	});

	test("no rows at all change nothing", () => {
		const store = new RowStore();
		store.append(rowsFrame(0, 0));
		expect([store.columns, store.received, store.changes.length]).toEqual([0, 0, 0]);
	});

	describe("whose numbers are on the shelf", () => {
		const metrics = ["a", "b"];
		let store: RowStore;
		let parts: Part[];
		beforeEach(() => {
			store = new RowStore();
			store.append(rowsFrame(0, 600, { metrics, rev: (p) => Math.floor(p / 400), entropy: () => 2 }));
			parts = [store.part(0), store.part(1)];
			for (const index of [0, 1, 9]) store.shelve(index);
		});
		const BYTES = 2 * 2 * 2 * CHUNK;

		test("knows all but the numbers, and says that it has none of those", () => {
			expect([store.state, [...store.away], store.parts, store.late(1)]).toEqual([
				"shelved",
				[0, 1],
				2,
				false,
			]);
			expect([store.received, store.columns, store.metrics]).toEqual([600, 600, metrics]);
			expect([store.carries("a"), store.carries("c")]).toEqual([true, false]);
			expect([store.has(599), store.rev(599), store.entropy(599), store.first("b")]).toEqual([true, 1, 2, 1]);
			expect(store.boundaries()).toEqual([{ rev: 1, position: 400 }]);
			expect(store.size).toBe(6 * 600);
			expect([store.value("a", 5, 0), store.value("a", 600, 0), store.value("c", 5, 0)]).toEqual([
				null,
				undefined,
				undefined,
			]);
			expect(() => store.chunk("a", 0)).toThrow("lie on the shelf");
			expect(() => store.part(1)).toThrow("lie on the shelf");
		});

		test("has them again part by part, the same chunks", () => {
			store.bring(1, parts[1]!);
			expect([store.state, [...store.away], store.size]).toEqual(["shelved", [0], 6 * 600 + BYTES]);
			expect([store.chunk("b", 1), store.value("b", 512, 0), store.value("b", 511, 0)]).toEqual([
				parts[1]!.get("b"),
				512.5,
				null,
			]);
			store.bring(0, parts[0]!);
			expect([store.state, store.chunk("b", 0), store.size]).toEqual([
				"here",
				parts[0]!.get("b"),
				6 * 600 + 2 * BYTES,
			]);
			// Once more changes nothing.
			store.bring(0, new Map());
			expect(store.chunk("b", 0)).toBe(parts[0]!.get("b"));
		});

		test("takes rows meanwhile, and puts them where they belong", () => {
			store.bring(1, parts[1]!);
			const whole = new RowStore();
			whole.append(rowsFrame(0, 600, { metrics }));
			const later = [
				rowsFrame(510, 4, { metrics, value: () => 9 }),
				rowsFrame(5, 1, { metrics: ["c"] }),
				rowsFrame(599, 2, { metrics }),
			];
			for (const frame of later) {
				store.append(frame);
				whole.append(frame);
			}
			expect([store.late(0), store.late(1), store.received, store.has(600)]).toEqual([
				true,
				false,
				601,
				true,
			]);
			expect([store.carries("c"), store.first("c"), store.value("c", 5, 0)]).toEqual([true, 5, null]);
			expect([store.value("a", 511, 0), store.value("a", 513, 0), store.value("a", 600, 0)]).toEqual([
				null,
				9,
				600,
			]);
			store.bring(0, parts[0]!);
			expect([store.late(0), store.state]).toEqual([false, "here"]);
			for (const metric of [...metrics, "c"]) {
				for (const index of [0, 1]) expect(store.chunk(metric, index)).toEqual(whole.chunk(metric, index));
			}
		});

		test("has another version of what rows came for, and of nothing else", () => {
			const before = [store.version(0), store.version(1)];
			store.append(rowsFrame(599, 1, { metrics }));
			expect(store.version(0)).toBe(before[0]);
			expect(store.version(1)).toBeGreaterThan(before[1]!);
		});

		test("has none when they are dropped, and none that come later", () => {
			store.dropNumbers();
			store.bring(0, parts[0]!);
			expect([store.state, store.metrics, store.parts, store.value("a", 5, 0)]).toEqual([
				"here",
				[],
				0,
				undefined,
			]);
		});
	});
});
