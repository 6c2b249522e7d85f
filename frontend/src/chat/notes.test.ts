import { beforeEach, expect, test } from "vitest";
import type { Run } from "../store/run";
import { finishedFrame, resumedFrame, startedFrame, testRun, tokensFrame } from "../testing";
import { endingOf, noteOf, waitingFor, writerOf } from "./notes";

let run: Run;
beforeEach(() => {
	run = testRun();
});

test("a reply waits for its place, then for its first token", () => {
	expect(waitingFor(run)).toBe("Waiting for the first token");
	run.take(startedFrame(["p"]), 0);
	const said = [3, 1, 0].map((position) => {
		run.take({ type: "queued", run: "r1", seq: 2, position }, 0);
		return waitingFor(run);
	});
	expect(said).toEqual([
		"Waiting for a place: 2 before you",
		"Waiting for a place: you are next",
		"Waiting for the first token",
	]);
	run.take(tokensFrame(1, ["x"]), 0);
	expect(waitingFor(run)).toBeNull();
});

test("what wrote a reply is said where there is a choice", () => {
	const adapters = [{ id: "poet", rank: 8 }];
	expect(writerOf(run, adapters)).toBe("");
	run.take(startedFrame(["p"]), 0);
	expect([writerOf(run, adapters), writerOf(run, [])]).toEqual(["Base model", ""]);
	const adapted = testRun();
	adapted.take({ ...startedFrame(["p"]), adapter: "poet" }, 0);
	expect([writerOf(adapted, adapters), writerOf(adapted, [])]).toEqual(["Adapter poet", "Adapter poet"]);
});

test("while the line is down the turn says what becomes of the reply", () => {
	run.take(startedFrame(["p"]), 0);
	expect(noteOf(run)).toBeNull();
	run.leave();
	expect(waitingFor(run)).toBeNull();
	expect(noteOf(run)).toContain("The reply goes on being written");
	run.delivery.stopAsked = true;
	expect(noteOf(run)).toContain("will be stopped when it is back");
	run.take(resumedFrame(), 0);
	expect(noteOf(run)).toBeNull();
});

test("how it ended", () => {
	run.take(startedFrame(["p"]), 0);
	expect(endingOf(run)).toBe("");
	run.lose("It is gone.");
	expect(endingOf(run)).toBe("Interrupted");
	expect(noteOf(run)).toBeNull();
	const ends = (["length", "cancelled"] as const).map((reason) => {
		run.take(finishedFrame({ reason }), 0);
		return endingOf(run);
	});
	expect(ends).toEqual(["Ended at the token limit", "Stopped"]);
	const failed = testRun({ id: "c2" });
	failed.take(finishedFrame({ reason: "error" }), 0);
	expect(endingOf(failed)).toBe("Failed");
	const cut = testRun({ id: "c3" });
	cut.take(finishedFrame({ stop: "END" }), 0);
	expect(endingOf(cut)).toBe('Ended at "END"');
});
