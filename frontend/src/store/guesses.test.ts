import { describe, expect, test } from "vitest";
import { chance, lensFrame } from "../testing";
import { GuessStore } from "./guesses";

describe("GuessStore", () => {
	test("keeps each guess at its position and layer, likeliest first", () => {
		const store = new GuessStore();
		const options = { layers: [1, 3], top: 3, texts: { 730: "A", 731: " b" } };
		store.append(lensFrame(7, 2, options));
		expect(store.at(7, 3)).toEqual([
			{ id: 730, text: "A", probability: 0.5 },
			{ id: 731, text: " b", probability: 0.25 },
			{ id: 732, text: "", probability: 0.125 },
		]);
		expect(store.at(8, 1)?.map(({ id }) => id)).toEqual([810, 811, 812]);
	});

	test("what was not read has no guesses", () => {
		const store = new GuessStore();
		expect(store.at(0, 1)).toBeNull();
		store.append(lensFrame(7, 1));
		store.append(lensFrame(9, 1));
		for (const position of [-1, 0, 6, 8, 10, 1000]) expect(store.at(position, 1)).toBeNull();
		expect(store.at(7, 0)).toBeNull();
		store.append(lensFrame(20, 0));
		expect(store.at(20, 1)).toBeNull();
	});

	test("guesses that hold other than they say are refused, and nothing is allocated for them", () => {
		const store = new GuessStore();
		expect(() => store.append({ ...lensFrame(7, 1), top: 1_000_000_000 })).toThrow(
			"Guesses of 1 positions hold 2 tokens and 2 probabilities, not 1000000000.",
		);
		expect([store.top, store.at(7, 1)]).toEqual([0, null]);
	});

	test("a text told once holds for the whole run", () => {
		const store = new GuessStore();
		store.append(lensFrame(4, 1, { id: () => 5, texts: { 5: "five" } }));
		store.append(lensFrame(5, 1, { id: () => 5 }));
		expect(store.at(5, 1)?.[1]?.text).toBe("five");
	});

	test("bytes may start at an odd offset", () => {
		const frame = lensFrame(3, 1);
		const shifted = new Uint8Array(frame.ids.length + 1);
		shifted.set(frame.ids, 1);
		const store = new GuessStore();
		store.append({ ...frame, ids: shifted.subarray(1) });
		expect(store.at(3, 1)?.map(({ id }) => id)).toEqual([310, 311]);
	});

	test("however guesses are cut, doubled and shuffled, the store ends the same", () => {
		const random = chance(11);
		for (let round = 0; round < 5; round++) {
			const pieces: [number, number][] = [];
			for (let start = 50; start < 400; ) {
				const count = Math.min(400 - start, 1 + Math.floor(random() * 40));
				pieces.push([start, count]);
				if (random() < 0.2) pieces.push([start, count]);
				start += count;
			}
			pieces.sort(() => random() - 0.5);
			const store = new GuessStore();
			for (const [start, count] of pieces) store.append(lensFrame(start, count, { layers: [0, 4] }));
			for (let p = 50; p < 400; p++) {
				expect(store.at(p, 4)?.map(({ id }) => id)).toEqual([100 * p + 40, 100 * p + 41]);
			}
			expect([store.at(49, 4), store.at(400, 4)]).toEqual([null, null]);
		}
	});

	test("a lens that is changed in mid-run reads other layers from there on", () => {
		const store = new GuessStore();
		store.append(lensFrame(3, 2, { layers: [1, 3] }));
		store.append(lensFrame(5, 2, { layers: [0, 3, 4], top: 4 }));
		store.append(lensFrame(7, 1, { layers: [3], top: 1 }));
		const ids = (position: number) =>
			[0, 1, 2, 3, 4].map((layer) => store.at(position, layer)?.map(({ id }) => id) ?? null);
		expect(ids(4)).toEqual([null, [410, 411], null, [430, 431], null]);
		expect(ids(6)).toEqual([[600, 601, 602, 603], null, null, [630, 631, 632, 633], [640, 641, 642, 643]]);
		expect(ids(7)).toEqual([null, null, null, [730], null]);
		expect([store.layers, store.top]).toEqual([[0, 1, 3, 4], 4]);
		// What comes again stays what it was.
		store.append(lensFrame(3, 2, { layers: [1, 3] }));
		expect(ids(3)).toEqual([null, [310, 311], null, [330, 331], null]);
	});
});
