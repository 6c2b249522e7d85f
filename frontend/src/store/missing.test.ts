import { describe, expect, test } from "vitest";
import { chance } from "../testing";
import { Missing } from "./missing";

describe("Missing", () => {
	test("keeps the same positions as a set, whatever comes and goes", () => {
		const random = chance(5);
		const missing = new Missing();
		const set = new Set<number>();
		for (let i = 0; i < 1000; i++) {
			const start = Math.floor(random() * 60);
			const count = 1 + Math.floor(random() * 9);
			const add = random() < 0.5;
			if (add) missing.add(start, count);
			else missing.remove(start, count);
			for (let p = start; p < start + count; p++) add ? set.add(p) : set.delete(p);
			expect(missing.none).toBe(set.size === 0);
			const here = Array.from({ length: 70 }, (_, p) => missing.any({ start: p, count: 1 }));
			expect(here).toEqual(Array.from({ length: 70 }, (_, p) => set.has(p)));
		}
	});

	test("hands out its first stretch, no longer than asked", () => {
		const missing = new Missing();
		expect(missing.first(10)).toBeNull();
		missing.add(8, 2);
		missing.add(10, 3);
		missing.add(3, 1);
		expect(missing.first(10)).toEqual({ start: 3, count: 1 });
		missing.remove(3, 1);
		expect([missing.first(10), missing.first(4)]).toEqual([
			{ start: 8, count: 5 },
			{ start: 8, count: 4 },
		]);
		missing.clear();
		expect(missing.none).toBe(true);
	});

	test("every second position of a very long reply is added and taken away in a moment", () => {
		const missing = new Missing();
		const [many, began] = [100_000, performance.now()];
		for (let p = 0; p < many; p++) missing.add(2 * p, 1);
		for (let p = 0; p < many; p++) missing.remove(2 * p, 1);
		expect(missing.none).toBe(true);
		// A second is a hundred times what it takes; in quadratic time it is minutes.
		expect(performance.now() - began).toBeLessThan(1000);
	});
});
