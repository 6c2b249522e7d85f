import { beforeEach, describe, expect, test } from "vitest";
import {
	appliedFrame,
	chance,
	finishedFrame,
	lensFrame,
	rowsFrame,
	startedFrame,
	testRun,
	tokensFrame,
} from "../testing";
import type { Run } from "./run";

let run: Run;
beforeEach(() => {
	run = testRun({ sentAt: 1000, special: [7] });
});

describe("Run", () => {
	test("goes from starting to streaming to done", () => {
		expect(run.delivery.phase).toBe("starting");
		run.take(startedFrame(["a", "b"]), 1001);
		expect([run.delivery.phase, run.name, run.tokens.promptLength]).toEqual(["streaming", "r1", 2]);
		run.take(tokensFrame(2, ["x", "y"]), 1010);
		run.take(finishedFrame(), 1020);
		expect(run.delivery.phase).toBe("done");
		expect(run.replyText()).toBe("xy");
		expect([0, 1, 2, 3, 4].map((p) => run.tokens.textAt(p))).toEqual(["a", "b", "x", "y", undefined]);
	});

	test("tokens that come twice or overlap are kept once", () => {
		run.take(startedFrame(["a"]), 0);
		const words = Array.from({ length: 200 }, (_, i) => `w${i} `);
		const random = chance(3);
		while (run.tokens.ids.length < words.length) {
			const start = Math.max(0, run.tokens.ids.length - Math.floor(random() * 5));
			const count = 1 + Math.floor(random() * 6);
			run.take(tokensFrame(1 + start, words.slice(start, start + count)), 0);
		}
		expect(run.tokens.texts).toEqual(words);
		expect(run.replyText()).toBe(words.join(""));
	});

	test("a hole in the tokens fails the run with a sentence and shifts nothing", () => {
		run.take(startedFrame(["a"]), 0);
		run.take(tokensFrame(1, ["x"]), 0);
		run.take(tokensFrame(4, ["z"]), 0);
		expect(run.delivery.phase).toBe("failed");
		expect(run.problem?.message).toBe("Tokens 2 to 3 never arrived, so the text would be wrong.");
		expect(run.tokens.texts).toEqual(["x"]);
	});

	test("special tokens are columns, not text", () => {
		run.take(startedFrame(["a"]), 0);
		run.take(tokensFrame(1, ["Hi", "<|im_end|>"], [50, 7]), 0);
		expect(run.replyText()).toBe("Hi");
		expect(run.tokens.length).toBe(3);
		expect([1, 2].map((p) => run.tokens.isSpecial(p))).toEqual([false, true]);
	});

	test("the reply ends before the stop string, wherever tokens are cut", () => {
		const text = "One. Two END and more";
		for (const size of [1, 2, 3, 5, 30]) {
			const one = testRun();
			one.take(startedFrame(["a"]), 0);
			const pieces = text.match(new RegExp(`.{1,${size}}`, "g"))!;
			one.take(tokensFrame(1, pieces), 0);
			expect(one.replyText()).toBe(text);
			one.take(finishedFrame({ stop: "END" }), 0);
			expect(one.replyText()).toBe("One. Two ");
		}
	});

	test("of a stop string that comes twice the first ends the reply", () => {
		run.take(startedFrame(["a"]), 0);
		run.take(tokensFrame(1, ["One", ".\n", "Two", ".\nThree.\n"]), 0);
		run.take(finishedFrame({ stop: ".\n" }), 0);
		expect(run.replyText()).toBe("One");
	});

	test("rows of another shape fail the run and do not throw", () => {
		run.take(startedFrame(["a"]), 0);
		run.take(rowsFrame(0, 1, { layers: 2 }), 0);
		run.take(rowsFrame(1, 1, { layers: 5 }), 0);
		expect(run.delivery.phase).toBe("failed");
		expect(run.problem?.message).toContain("5 layers");
	});

	test("what was lost stays lost, and a finished run cannot be", () => {
		run.take(startedFrame(["a"]), 0);
		run.leave();
		expect([run.delivery.phase, run.delivery.live, run.delivery.away]).toEqual(["away", true, true]);
		run.lose("It is gone.");
		expect([run.delivery.phase, run.delivery.live, run.delivery.away]).toEqual(["lost", false, false]);
		expect(run.problem?.message).toBe("It is gone.");
		run.take(finishedFrame(), 0);
		expect(run.delivery.phase).toBe("lost");
		const done = testRun({ id: "c2" });
		done.take(startedFrame(["a"]), 0);
		done.take(finishedFrame(), 0);
		done.leave();
		done.lose("It is gone.");
		expect([done.delivery.phase, done.problem]).toEqual(["done", null]);
	});

	test("speed is the page's until the server says it", () => {
		run.take(startedFrame(["a"]), 1001);
		expect([run.firstTokenMs(), run.tokensPerSecond()]).toEqual([null, null]);
		run.take(tokensFrame(1, ["x"]), 1200);
		expect([run.firstTokenMs(), run.tokensPerSecond()]).toEqual([200, null]);
		run.take(tokensFrame(2, ["y", "z"]), 1700);
		expect(run.tokensPerSecond()).toBe(4);
		run.take(finishedFrame({ timing: { first_token_ms: 12, total_ms: 100, tokens_per_s: 22 } }), 1800);
		expect([run.firstTokenMs(), run.tokensPerSecond()]).toEqual([12, 22]);
	});

	test("a reply token knows its surprisal, its rank and the entropy it was drawn from", () => {
		run.take(startedFrame(["a", "b"]), 0);
		run.take({ ...tokensFrame(2, ["x", "y"]), logprobs: [-0.75, null], ranks: [3, null] }, 0);
		run.take(rowsFrame(0, 3, { entropy: (p) => (p === 0 ? Number.NaN : p / 2) }), 0);
		const facts = [1, 2, 3, 4].map((p) => [
			run.tokens.surprisal(p),
			run.tokens.rank(p),
			run.entropyBefore(p),
		]);
		expect(facts).toEqual([
			[null, null, null],
			[0.75, 3, 0.5],
			[null, null, 1],
			[null, null, null],
		]);
	});

	test("knows which metrics it is watched with", () => {
		expect(run.watches("cosine")).toBe(true);
		run.take(startedFrame(["a"]), 0);
		expect([run.watches("norm"), run.watches("cosine")]).toEqual([true, false]);
		run.take(rowsFrame(0, 1, { metrics: ["cosine"] }), 0);
		expect(run.watches("cosine")).toBe(true);
	});

	test("guesses that hold other than they say fail the run and do not throw", () => {
		run.take(startedFrame(["a"]), 0);
		run.take(lensFrame(0, 1), 0);
		run.take({ ...lensFrame(1, 1), top: 3 }, 0);
		expect(run.delivery.phase).toBe("failed");
	});

	test("reason error fails the run, with the server's sentence", () => {
		run.take(startedFrame(["a"]), 0);
		const error = { code: "engine_failed" as const, message: "The engine's process ended." };
		run.take(finishedFrame({ reason: "error", error }), 0);
		expect([run.delivery.phase, run.problem]).toEqual(["failed", error]);
	});

	test("what was applied is noted once", () => {
		const applied = appliedFrame(2, 9, { seq: 3 });
		run.take(applied, 0);
		run.take(applied, 0);
		expect(run.applied).toEqual([{ rev: 2, position: 9, steered: { strengths: {}, settings: {} } }]);
	});

	test("skipped rows that are kept are missing until they come, or until nobody has them", () => {
		run.take(startedFrame(["a"]), 0);
		run.take(rowsFrame(4, 1), 0);
		const gap = { type: "gap" as const, run: "r1", seq: 2, start: 3, count: 4 };
		run.take({ ...gap, kept: false, cached: false }, 0);
		expect(run.delivery.missing.none).toBe(true);
		run.take({ ...gap, kept: true, cached: false }, 0);
		run.take({ ...gap, kept: true, cached: false }, 0);
		expect(run.delivery.missing.first(9)).toEqual({ start: 3, count: 1 });
		run.take(rowsFrame(3, 1), 0);
		expect(run.delivery.missing.first(9)).toEqual({ start: 5, count: 2 });
		run.take({ ...gap, start: 5, kept: false, cached: false }, 0);
		expect(run.delivery.missing.none).toBe(true);
	});

	test("knows up to where it has had everything", () => {
		run.take(startedFrame(["a"]), 0);
		run.take({ ...tokensFrame(1, ["x"]), seq: 7 }, 0);
		run.take({ ...rowsFrame(0, 1), seq: 4 }, 0);
		expect(run.delivery.seq).toBe(7);
	});

	test("waits in the queue until its turn or its first token", () => {
		run.take(startedFrame(["a"]), 0);
		const queued = { type: "queued" as const, run: "r1", seq: 2, position: 3 };
		run.take(queued, 0);
		expect(run.delivery.queued).toBe(3);
		run.take({ ...queued, position: 0 }, 0);
		expect(run.delivery.queued).toBeNull();
		run.take(queued, 0);
		run.take(tokensFrame(1, ["x"]), 0);
		expect(run.delivery.queued).toBeNull();
	});

	test("the same events twice, in any portions, are the same reply", () => {
		const events = [
			startedFrame(["a"]),
			tokensFrame(1, ["x", "y"]),
			rowsFrame(0, 2),
			appliedFrame(1, 2, { seq: 3 }),
			rowsFrame(2, 2, { rev: () => 1 }),
			tokensFrame(3, ["z"]),
			finishedFrame(),
		];
		for (const event of events) run.take(event, 0);
		const said = () => [run.replyText(), run.rows.received, [...run.rows.boundaries()], run.applied];
		const once = structuredClone(said());
		for (const event of events) run.take(event, 0);
		expect(said()).toEqual(once);
		run.take(tokensFrame(4, ["late"]), 0);
		expect(run.replyText()).toBe("xyz");
	});

	test("a remembered text stands until its tokens have come again", () => {
		run.delivery.remembered = "One two";
		run.take(startedFrame(["a"]), 0);
		run.take(tokensFrame(1, ["One"]), 0);
		expect(run.replyText()).toBe("One two");
		run.take(tokensFrame(2, [" two", " three"]), 0);
		expect(run.replyText()).toBe("One two three");
	});

	test("a reply that this page did not see begin is not measured by it", () => {
		const resumed = testRun({ id: "c2", sentAt: null });
		resumed.take(startedFrame(["a"]), 0);
		resumed.take(tokensFrame(1, ["x", "y"]), 10);
		resumed.take(tokensFrame(3, ["z"]), 20);
		expect([resumed.firstTokenMs(), resumed.tokensPerSecond()]).toEqual([null, null]);
	});

	describe("what lies beyond the longest text of the model", () => {
		const far = 50_000_000;
		const gap = { type: "gap" as const, run: "r1", seq: 2, start: 3, count: far, kept: true, cached: false };
		test.each([
			["rows", rowsFrame(far, 1)],
			["guesses", lensFrame(far, 1)],
			["a gap", gap],
			["a revision", appliedFrame(1, far, { seq: 2 })],
		])("%s: the run fails with a sentence, and nothing is allocated", (_, frame) => {
			run.know({ special_ids: [], chat: "template", thoughts: null, max_model_len: 64 });
			run.take(startedFrame(["a"]), 0);
			run.take(frame, 0);
			expect(run.delivery.phase).toBe("failed");
			expect(run.problem?.message).toMatch(
				/^The server spoke of position 5\d+, and this model's texts end at 63/,
			);
			expect([
				run.rows.columns,
				run.rows.chunk("norm", 0),
				run.delivery.missing.none,
				run.applied.length,
			]).toEqual([0, undefined, true, 0]);
		});

		test("the last position is within", () => {
			run.know({ special_ids: [], chat: "template", thoughts: null, max_model_len: 64 });
			run.take(startedFrame(["a"]), 0);
			run.take(rowsFrame(63, 1), 0);
			run.take({ ...gap, start: 0, count: 64 }, 0);
			expect([run.delivery.phase, run.rows.columns]).toEqual(["streaming", 64]);
		});
	});

	test("a gap over a long reply of which every second row is here is taken in a moment", () => {
		run.take(startedFrame(["a"]), 0);
		const many = 60_000;
		for (let p = 0; p < many; p += 2) run.take(rowsFrame(p, 1), 0);
		const began = performance.now();
		run.take({ type: "gap", run: "r1", seq: 2, start: 0, count: many, kept: true, cached: false }, 0);
		for (let p = 1; p < many; p += 2) run.take(rowsFrame(p, 1), 0);
		expect(run.delivery.missing.none).toBe(true);
		expect(performance.now() - began).toBeLessThan(2000);
	});
});
