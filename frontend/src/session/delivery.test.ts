import { beforeEach, describe, expect, test } from "vitest";
import type { ClientFrame } from "../protocol/types.gen";
import type { Run, RunFrame } from "../store/run";
import {
	finishedFrame,
	gapFrame,
	resumedFrame,
	rowsFrame,
	startedFrame,
	TestClock,
	testRun,
	tokensFrame,
} from "../testing";
import { Delivery, NEVER_KNOWN, NO_MAP, OTHER_EPOCH, UNKNOWN } from "./delivery";
import { AGAIN_MS, ANSWER_MS, CALM_MS, MOST_ROWS } from "./skipped";

let clock: TestClock;
let sent: ClientFrame[];
let delivery: Delivery;
beforeEach(() => {
	clock = new TestClock();
	sent = [];
	delivery = new Delivery((frame) => sent.push(frame) > 0, clock);
});

function begun(name = "r1", epoch = "e1"): Run {
	const run = testRun({ id: `c-${name}` });
	run.take(startedFrame(["p"], run.id, name), 0);
	run.delivery.epoch = epoch;
	delivery.follow(run);
	return run;
}
/** A reply of which a reload left the text. */
function kept(name: string, epoch = "e1"): Run {
	const run = testRun({ id: `c-${name}`, sentAt: null, phase: "done" });
	run.name = name;
	Object.assign(run.delivery, { epoch, remembered: "text" });
	delivery.follow(run);
	return run;
}
const say = (run: Run, ...frames: RunFrame[]) => {
	for (const frame of frames) {
		run.take({ ...frame, run: run.name! }, 0);
		delivery.took(run, { ...frame, run: run.name! });
	}
};
const gap = (start: number, count: number, kept = true) => gapFrame(start, count, { kept });
const resumes = () => sent.filter((frame) => frame.type === "resume").map((frame) => frame.run);
const asks = () =>
	sent.filter((frame) => frame.type === "rows").map(({ start, count }) => [start, count] as const);

describe("after a line that came back", () => {
	test("a live run goes on after what was had, and a stop is said again", () => {
		const run = begun();
		say(run, { ...tokensFrame(1, ["x"]), seq: 8 });
		delivery.lost();
		expect([run.delivery.live, run.delivery.away]).toEqual([true, true]);
		run.delivery.stopAsked = true;
		delivery.back("e1");
		expect(sent).toEqual([{ type: "resume", run: "r1", epoch: "e1", after: 8 }]);
		say(run, resumedFrame({ seq: 8 }));
		expect(run.delivery.away).toBe(false);
		expect(sent.at(-1)).toEqual({ type: "stop", run: "r1" });
	});

	test("a finished run is left alone", () => {
		const run = begun();
		say(run, finishedFrame());
		delivery.lost();
		delivery.back("e1");
		expect(sent).toEqual([]);
	});

	test("another life of the server is not even asked", () => {
		const live = begun();
		const old = kept("r0");
		delivery.back("e2");
		expect(sent).toEqual([]);
		expect([live.delivery.phase, live.problem?.message, old.delivery.gone]).toEqual([
			"lost",
			OTHER_EPOCH,
			NO_MAP,
		]);
		expect(delivery.find("r1")).toBeUndefined();
	});

	test("a run that the server let go of keeps what came, with a sentence", () => {
		const run = begun();
		delivery.back("e1");
		delivery.unavailable(run, "unknown_run");
		expect([run.delivery.phase, run.problem?.message]).toEqual(["lost", UNKNOWN]);
		const strange = testRun({ id: "c9", sentAt: null, phase: "away" });
		strange.name = "r9";
		delivery.follow(strange);
		delivery.back("e1");
		delivery.unavailable(strange, "unknown_run");
		expect(strange.problem?.message).toBe(NEVER_KNOWN);
	});

	test("kept replies are fetched newest first, one after the other, beside the live one", () => {
		const [one, two, three] = [kept("r1"), kept("r2"), kept("r3")];
		begun("r4");
		delivery.back("e1");
		expect(resumes()).toEqual(["r4", "r3"]);
		say(three, resumedFrame(), startedFrame(["p"]), finishedFrame());
		expect(resumes()).toEqual(["r4", "r3", "r2"]);
		delivery.unavailable(two, "unknown_run");
		expect(two.delivery.gone).toBe(NO_MAP);
		expect(resumes().at(-1)).toBe("r1");
		delivery.lost();
		delivery.back("e1");
		expect(resumes().slice(4)).toEqual(["r4", "r1"]);
		say(one, resumedFrame(), finishedFrame());
		expect([one.delivery.gone, one.delivery.complete]).toEqual([null, true]);
	});

	test("a resume that was too much at once is said again", () => {
		const run = begun();
		delivery.back("e1");
		delivery.resume(run);
		expect(resumes().length).toBe(1);
		delivery.later(run);
		clock.advance(AGAIN_MS);
		expect(resumes().length).toBe(2);
	});
});

describe("skipped rows", () => {
	test("of a live run are asked for when it has been calm for a moment", () => {
		const run = begun();
		say(run, gap(0, 2));
		clock.advance(CALM_MS - 1);
		say(run, gap(5, 2));
		clock.advance(CALM_MS - 1);
		expect(asks()).toEqual([]);
		clock.advance(1);
		expect(asks()).toEqual([[0, 2]]);
		say(run, rowsFrame(0, 1), rowsFrame(8, 1));
		expect(asks().length).toBe(1);
		say(run, rowsFrame(1, 1));
		expect(asks()).toEqual([
			[0, 2],
			[5, 2],
		]);
		say(run, rowsFrame(5, 2));
		clock.advance(10 * ANSWER_MS);
		expect(asks().length).toBe(2);
	});

	test("of a finished run at once, in portions", () => {
		const run = begun();
		say(run, gap(0, MOST_ROWS + 1), finishedFrame());
		expect(asks()).toEqual([[0, MOST_ROWS]]);
		say(run, rowsFrame(0, MOST_ROWS, { layers: 1 }));
		expect(asks().at(-1)).toEqual([MOST_ROWS, 1]);
		say(run, rowsFrame(MOST_ROWS, 1, { layers: 1 }));
		expect(asks().length).toBe(2);
	});

	test("that never come are a hole after a few tries", () => {
		const run = begun();
		say(run, gap(3, 1), gap(9, 1), finishedFrame());
		clock.advance(3 * ANSWER_MS);
		expect(asks()).toEqual([
			[3, 1],
			[3, 1],
			[3, 1],
			[9, 1],
		]);
		delivery.unavailable(run, "invalid");
		clock.advance(10 * ANSWER_MS);
		expect(asks().length).toBe(4);
		expect([run.delivery.missing.none, run.delivery.gone, run.problem]).toEqual([true, null, null]);
	});

	test("nobody has are not waited for", () => {
		const run = begun();
		say(run, gap(3, 2), finishedFrame(), gap(3, 2, false));
		clock.advance(10 * ANSWER_MS);
		expect(asks().length).toBe(1);
	});

	test("asked for too fast are asked for a moment later", () => {
		const run = begun();
		say(run, gap(3, 2), finishedFrame());
		delivery.later(run);
		clock.advance(AGAIN_MS);
		expect(asks().length).toBe(2);
		delivery.later(run);
		say(run, rowsFrame(3, 2));
		clock.advance(10 * ANSWER_MS);
		expect(asks().length).toBe(2);
	});

	test("of a finished run are asked for again after a line that broke", () => {
		const run = begun();
		say(run, gap(3, 2), finishedFrame());
		delivery.lost();
		clock.advance(10 * ANSWER_MS);
		expect(asks().length).toBe(1);
		delivery.back("e1");
		expect(resumes()).toEqual(["r1"]);
		say(run, resumedFrame());
		expect(asks().length).toBe(2);
	});
});
