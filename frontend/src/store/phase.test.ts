import { describe, expect, test } from "vitest";
import { chance, finishedFrame, resumedFrame, startedFrame, testRun } from "../testing";
import { isLive, NEXT_RUN_PHASE, RUN_PHASES, type RunEvent, type RunPhase } from "./phase";
import type { Run } from "./run";

/** What each event is in a run. */
const EVENTS: Record<RunEvent, (run: Run) => void> = {
	started: (run) => run.take(startedFrame(["p"]), 0),
	left: (run) => run.leave(),
	resumed: (run) => run.take(resumedFrame(), 0),
	finished: (run) => run.take(finishedFrame(), 0),
	failed: (run) => run.fail("internal", "No."),
	lost: (run) => run.lose("No."),
};

/** Phases as columns, in the order of RUN_PHASES; "." where the event changes nothing. */
const TABLE: [RunEvent, string][] = [
	["started", "streaming . . . . ."],
	["left", ". away . . . ."],
	["resumed", ". . streaming . . ."],
	["finished", "done done done . . ."],
	["failed", "failed failed failed . . ."],
	["lost", ". lost lost . . ."],
];

describe("phases of a run", () => {
	test.each(TABLE)("%s", (event, row) => {
		const wanted = row.split(" ");
		const found = RUN_PHASES.map((phase) => {
			const run = testRun({ phase });
			EVENTS[event](run);
			expect(run.delivery.phase).toBe(NEXT_RUN_PHASE[phase][event] ?? phase);
			return run.delivery.phase === phase ? "." : run.delivery.phase;
		});
		expect(found).toEqual(wanted);
	});

	test("a reply whose end is an error has failed", () => {
		const run = testRun({ phase: "away" });
		run.take(finishedFrame({ reason: "error" }), 0);
		expect(run.delivery.phase).toBe("failed");
	});

	test("live are those that something can still follow, and only live runs can be away", () => {
		for (const phase of RUN_PHASES) expect(isLive(phase)).toBe(Object.keys(NEXT_RUN_PHASE[phase]).length > 0);
	});

	test("in any order of events, what is over stays over", () => {
		const random = chance(11);
		const events = Object.values(EVENTS);
		for (let round = 0; round < 200; round++) {
			const run = testRun();
			let over: RunPhase | null = null;
			for (let i = 0; i < 12; i++) {
				events[Math.floor(random() * events.length)]!(run);
				if (over !== null) expect(run.delivery.phase).toBe(over);
				if (!run.delivery.live) over = run.delivery.phase;
			}
		}
	});
});
