import { describe, expect, test } from "vitest";
import type { Alternatives } from "../protocol/types.gen";
import { rowsFrame, startedFrame, testRun, watchedFrame } from "../testing";
import { AlternativeStore } from "./alternatives";

/** Tokens `10 * position + place`, of log probability -1 - place. */
function frame(start: number, count: number, top: number, texts: Record<number, string> = {}): Alternatives {
	const at = Array.from({ length: count * top }, (_, i) => [start + Math.floor(i / top), i % top] as const);
	return {
		type: "alternatives",
		run: "r1",
		seq: 1,
		start,
		count,
		top,
		ids: new Uint8Array(Int32Array.from(at, ([position, place]) => 10 * position + place).buffer),
		logprobs: new Uint8Array(Float32Array.from(at, ([, place]) => -1 - place).buffer),
		new_ids: Object.keys(texts).map(Number),
		new_texts: Object.values(texts),
	};
}

describe("AlternativeStore", () => {
	test("keeps what could have stood behind each position, likeliest first", () => {
		const store = new AlternativeStore();
		store.append(frame(3, 2, 3, { 30: " a", 31: "b" }));
		store.append(frame(9, 1, 2));
		expect(store.at(3)).toEqual([
			{ id: 30, text: " a", logprob: -1 },
			{ id: 31, text: "b", logprob: -2 },
			{ id: 32, text: "", logprob: -3 },
		]);
		expect([store.at(2), store.at(5), store.at(9)?.length, store.positions, store.top]).toEqual([
			null,
			null,
			2,
			[3, 4, 9],
			3,
		]);
		// The same once more changes nothing, and a name that comes later is known everywhere.
		store.append(frame(4, 1, 3, { 32: "c" }));
		expect([store.positions, store.at(3)![2]!.text]).toEqual([[3, 4, 9], "c"]);
	});

	test("bytes at an odd place, and places that were left empty", () => {
		const store = new AlternativeStore();
		const one = frame(1, 1, 2);
		const shifted = new Uint8Array(9);
		shifted.set(one.ids, 1);
		shifted.set([255, 255, 255, 255], 5);
		store.append({ ...one, ids: shifted.subarray(1) });
		expect(store.at(1)).toEqual([{ id: 10, text: "", logprob: -1 }]);
	});

	test("what holds other than it says fails the run with a sentence", () => {
		const run = testRun();
		run.take(startedFrame(["p"]), 0);
		run.take({ ...frame(0, 1, 2), top: 3 }, 0);
		expect(run.problem?.message).toBe(
			"Alternatives of 1 positions hold 2 tokens and 2 log probabilities, not 3.",
		);
	});
});

describe("what a run is watched with", () => {
	test("is known from where on, and what is told twice is told once", () => {
		const run = testRun();
		run.take(startedFrame(["p", "q"]), 0);
		run.take(rowsFrame(0, 2), 0);
		expect(run.watched).toEqual([
			{ from: 0, metrics: ["norm"], lens: null, entropy: false, alternatives: 0 },
		]);
		const lens = { stride: 4, top: 5 };
		const watched = watchedFrame(5, ["cosine"], [], { lens, entropy: true, alternatives: 20 });
		run.take(watched, 0);
		run.take(watched, 0);
		run.take({ ...startedFrame(["p", "q"]), seq: 1 }, 0);
		expect(run.watched.slice(1)).toEqual([
			{ from: 5, metrics: ["cosine"], lens, entropy: true, alternatives: 20 },
		]);
		expect([run.metrics, run.watches("cosine"), run.watches("norm"), run.watches("other")]).toEqual([
			["cosine"],
			true,
			true,
			false,
		]);
	});

	test("a change before the first row takes the place of what was asked", () => {
		const run = testRun();
		const started = startedFrame(["p", "q"]);
		for (const frame of [started, watchedFrame(0, ["norm"], ["mine"]), started]) run.take(frame, 0);
		expect(run.watched.map(({ from, metrics }) => [from, metrics])).toEqual([[0, ["norm", "live:mine"]]]);
		expect([run.watches("live:mine"), run.watches("live:other")]).toEqual([true, false]);
	});

	test("its own metrics are described where they come, each once and in their order", () => {
		const run = testRun();
		run.take(startedFrame(["p", "q"]), 0);
		run.take(watchedFrame(3, ["norm"], ["a"]), 0);
		const [first] = run.live;
		run.take(watchedFrame(5, ["norm"], ["a", "b"]), 0);
		run.take(watchedFrame(3, ["norm"], ["a"]), 0);
		expect(run.live.map(({ id, label }) => [id, label])).toEqual([
			["live:a", "a"],
			["live:b", "b"],
		]);
		expect(run.live[0]).toBe(first);
		// An older server says nothing of them.
		const { live: _, ...older } = watchedFrame(7, ["norm"]);
		run.take(older as typeof older & { live: [] }, 0);
		expect([run.live.length, run.delivery.phase]).toEqual([2, "streaming"]);
	});
});
