import { expect, test } from "vitest";
import { leaving } from "./shelf";

const one = (of: string, bytes: number, used: number, stays = false) => ({ of, bytes, used, stays });

test("nothing leaves while all fits", () => {
	expect(leaving([one("a", 60, 1), one("b", 40, 2)], 100)).toEqual([]);
	expect(leaving([], 0)).toEqual([]);
});

test("the longest unused leave first, and no more than must", () => {
	const all = [one("a", 50, 3), one("b", 10, 1), one("c", 40, 2), one("d", 30, 4)];
	expect(leaving(all, 100)).toEqual(["b", "c"]);
	expect(leaving(all, 120)).toEqual(["b"]);
});

test("what stays counts and does not leave, however much it is", () => {
	expect(leaving([one("a", 500, 1, true), one("b", 10, 2)], 100)).toEqual(["b"]);
	expect(leaving([one("a", 500, 1, true)], 100)).toEqual([]);
});
