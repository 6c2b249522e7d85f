import { beforeEach, describe, expect, test } from "vitest";
import type { Run } from "../store/run";
import { appliedFrame, manualBatch, rowsFrame, startedFrame, testRun } from "../testing";
import { layersText, statusText } from "./Slider";
import { OWN_WAY, type Settings, type Strengths } from "./setting";
import { AGAIN_MS } from "./steered";
import { Steering } from "./steering";

let time = 0;
let timers: (() => void)[] = [];
let sent: { run: string; rev: number; strengths: Strengths; settings?: Settings }[] = [];
let line = true;
let steering: Steering;
const clock = {
	now: () => time,
	setTimeout: (callback: () => void) => timers.push(callback),
	clearTimeout: () => {
		timers = [];
	},
};

beforeEach(() => {
	time = 0;
	timers = [];
	sent = [];
	line = true;
	steering = new Steering(
		(run, rev, { strengths, settings }) =>
			line && sent.push({ run, rev, strengths, ...(Object.keys(settings).length > 0 && { settings }) }) > 0,
		clock,
		manualBatch(),
	);
});

function startRun(): Run {
	const run = testRun({ steered: steering.steered() });
	steering.attach(run);
	run.take(startedFrame(["a", "b"]), 0);
	steering.started(run);
	return run;
}

describe("Steering", () => {
	test("between runs nothing travels; the next start carries what is not 0", () => {
		steering.set("joy", 0.3);
		steering.set("french", 0.1);
		steering.set("french", 0);
		expect(sent).toEqual([]);
		expect(steering.strengths()).toEqual({ joy: 0.3 });
		expect(steering.status("joy")).toEqual({ kind: "next" });
		expect(steering.status("french")).toEqual({ kind: "idle" });
	});

	test("revision 0 is in force once rows came", () => {
		steering.set("joy", 0.3);
		const run = startRun();
		expect(steering.status("joy")).toEqual({ kind: "sent", rev: 0 });
		run.take(rowsFrame(0, 2), 0);
		expect(steering.status("joy")).toEqual({ kind: "in-force", position: 0 });
	});

	test("a move is sent, and in force only when applied names it or a newer one", () => {
		const run = startRun();
		steering.set("joy", 0.2);
		expect(sent).toEqual([{ run: "r1", rev: 1, strengths: { joy: 0.2 } }]);
		expect(steering.status("joy")).toEqual({ kind: "sent", rev: 1 });
		steering.set("pirate", 0.4);
		time = 60;
		timers.shift()!();
		expect(sent.at(-1)).toEqual({ run: "r1", rev: 2, strengths: { joy: 0.2, pirate: 0.4 } });
		run.take(appliedFrame(2, 31, { seq: 5 }), 0);
		expect(steering.status("joy")).toEqual({ kind: "in-force", position: 31 });
		expect(steering.status("pirate")).toEqual({ kind: "in-force", position: 31 });
		time = 500;
		steering.set("joy", 0);
		expect(sent.at(-1)).toEqual({ run: "r1", rev: 3, strengths: { pirate: 0.4 } });
		expect(steering.status("joy")).toEqual({ kind: "sent", rev: 3 });
		expect(steering.status("pirate")).toEqual({ kind: "in-force", position: 31 });
	});

	test("a move before the run has a name travels as soon as it has", () => {
		const run = testRun();
		steering.attach(run);
		steering.set("joy", 0.2);
		expect(sent).toEqual([]);
		run.take(startedFrame(["a"]), 0);
		steering.started(run);
		expect(sent).toEqual([{ run: "r1", rev: 1, strengths: { joy: 0.2 } }]);
	});

	test("after the run a change waits for the next one", () => {
		const run = startRun();
		steering.set("joy", 0.2);
		run.lose("Gone.");
		steering.ended(run);
		expect(steering.status("joy")).toEqual({ kind: "next" });
		steering.set("joy", 0.5);
		expect(sent.length).toBe(1);
		expect(steering.status("joy")).toEqual({ kind: "next" });
	});

	test("a refused run leaves the sliders as they were before it", () => {
		steering.set("joy", 0.3);
		const run = testRun({ steered: steering.steered() });
		steering.attach(run);
		steering.detach(run);
		expect(steering.status("joy")).toEqual({ kind: "next" });
	});

	describe("how a vector acts", () => {
		const ablate = { ...OWN_WAY, operator: "ablate" as const, first: 8 };

		test("travels beside the strength, and only with one", () => {
			steering.act("joy", ablate);
			expect(steering.steered()).toEqual({ strengths: {}, settings: {} });
			startRun();
			steering.set("joy", 1);
			expect(sent).toEqual([
				{ run: "r1", rev: 1, strengths: { joy: 1 }, settings: { joy: { operator: "ablate", first: 8 } } },
			]);
		});

		test("is a change like any other: sent, then in force", () => {
			steering.set("joy", 0.3);
			const run = startRun();
			run.take(rowsFrame(0, 2), 0);
			steering.act("joy", ablate);
			expect(sent.length).toBe(1);
			expect(steering.status("joy")).toEqual({ kind: "sent", rev: 1 });
			steering.act("joy", { ...ablate });
			expect(sent.length).toBe(1);
			run.take(appliedFrame(1, 9, { seq: 5 }), 0);
			expect(steering.status("joy")).toEqual({ kind: "in-force", position: 9 });
		});

		test("at 0 it is kept and not sent, and is forgotten with its vector", () => {
			startRun();
			steering.act("joy", ablate);
			expect(sent).toEqual([]);
			expect(steering.status("joy")).toEqual({ kind: "idle" });
			expect(steering.setting("joy")).toEqual(ablate);
			steering.keepOnly(new Set());
			expect(steering.setting("joy")).toEqual(OWN_WAY);
		});
	});

	describe("a slider put back to 0 in mid-run", () => {
		test("left something behind once a row was computed with it", () => {
			const run = startRun();
			steering.set("joy", 0.3);
			time = 100;
			steering.set("joy", 0);
			expect(steering.leftBehind("joy")).toBe(false);
			run.take(rowsFrame(0, 2), 0);
			expect(steering.leftBehind("joy")).toBe(false);
			run.take(rowsFrame(2, 1, { rev: () => 1 }), 0);
			expect(steering.leftBehind("joy")).toBe(true);
			expect([steering.acts("joy"), steering.leftBehind("pirate")]).toEqual([false, false]);
			steering.set("joy", 0.1);
			expect([steering.acts("joy"), steering.leftBehind("joy")]).toEqual([true, false]);
		});

		test("or when the run began with it; the next run knows nothing of it", () => {
			steering.set("joy", 0.3);
			const run = startRun();
			run.take(rowsFrame(0, 2), 0);
			steering.set("joy", 0);
			expect(steering.leftBehind("joy")).toBe(true);
			startRun();
			expect(steering.leftBehind("joy")).toBe(false);
		});

		test("not when it is put back after the run: nothing more is written there", () => {
			steering.set("joy", 0.3);
			const run = startRun();
			run.take(rowsFrame(0, 2), 0);
			run.lose("Gone.");
			steering.ended(run);
			steering.set("joy", 0);
			expect(steering.leftBehind("joy")).toBe(false);
		});
	});

	describe("over a line that breaks", () => {
		test("what moves meanwhile waits, says so, and travels as a newer revision", () => {
			const run = startRun();
			steering.set("joy", 0.2);
			run.leave();
			steering.hold(run);
			steering.set("joy", 0.4);
			steering.set("pirate", 0.1);
			expect(sent.length).toBe(1);
			expect(steering.status("joy")).toEqual({ kind: "held" });
			time = 100;
			steering.resumed(run, 1, { strengths: { joy: 0.2 }, settings: {} });
			expect(sent.at(-1)).toEqual({ run: "r1", rev: 2, strengths: { joy: 0.4, pirate: 0.1 } });
			expect(steering.status("pirate")).toEqual({ kind: "sent", rev: 2 });
		});

		test("what was lost on the way is said again", () => {
			const run = startRun();
			steering.set("joy", 0.2);
			steering.hold(run);
			time = 100;
			steering.resumed(run, 0, { strengths: {}, settings: {} });
			expect(sent.map(({ rev, strengths }) => [rev, strengths])).toEqual([
				[1, { joy: 0.2 }],
				[2, { joy: 0.2 }],
			]);
		});

		test("a frame that could not be handed over is one that waits", () => {
			const run = startRun();
			line = false;
			steering.set("joy", 0.2);
			expect(steering.status("joy")).toEqual({ kind: "held" });
			line = true;
			steering.resumed(run, 0, { strengths: {}, settings: {} });
			expect(sent).toEqual([{ run: "r1", rev: 1, strengths: { joy: 0.2 } }]);
		});

		test("when nothing was moved nothing is sent", () => {
			steering.set("joy", 0.3);
			const run = startRun();
			steering.hold(run);
			steering.resumed(run, 0, { strengths: { joy: 0.3 }, settings: {} });
			expect(sent).toEqual([]);
			expect(steering.get("joy")).toBe(0.3);
		});
	});

	describe("a run that is steered from elsewhere too", () => {
		test("gives the sliders its values; those moved here keep theirs", () => {
			steering.set("french", 0.9);
			const run = testRun();
			run.take(startedFrame(["a", "b"]), 0);
			run.leave();
			steering.attach(run);
			steering.set("pirate", 0.1);
			steering.resumed(run, 4, {
				strengths: { joy: 0.2, pirate: 0.5 },
				settings: { joy: { operator: "ablate" } },
			});
			expect(steering.strengths()).toEqual({ joy: 0.2, pirate: 0.1 });
			expect(steering.setting("joy").operator).toBe("ablate");
			expect(steering.status("joy")).toEqual({ kind: "sent", rev: 4 });
			expect(sent).toEqual([
				{
					run: "r1",
					rev: 5,
					strengths: { joy: 0.2, pirate: 0.1 },
					settings: { joy: { operator: "ablate" } },
				},
			]);
		});

		test("its revisions are stepped over; one that is not ours is told", () => {
			const run = startRun();
			steering.set("joy", 0.2);
			expect(steering.applied(run, 1)).toBe(false);
			expect(steering.applied(run, 5)).toBe(true);
			expect(steering.applied(run, 5)).toBe(false);
			steering.resumed(run, 5, { strengths: { joy: 0.7 }, settings: {} });
			expect(steering.get("joy")).toBe(0.7);
			time = 100;
			steering.set("joy", 0.1);
			expect(sent.at(-1)).toMatchObject({ rev: 6, strengths: { joy: 0.1 } });
		});

		test("a stale revision is said again above the newest, and is not in force before", () => {
			const run = startRun();
			steering.set("joy", 0.2);
			run.take(appliedFrame(1, 9, { seq: 5 }), 0);
			steering.stale(run);
			expect(steering.status("joy")).toEqual({ kind: "held" });
			time = 100;
			steering.resumed(run, 3, { strengths: { pirate: 0.4 }, settings: {} });
			expect(sent.at(-1)).toEqual({ run: "r1", rev: 4, strengths: { joy: 0.2, pirate: 0.4 } });
			expect(steering.status("joy")).toEqual({ kind: "sent", rev: 4 });
		});
	});

	test("what was refused as too much at once is said again, unless it came into force", () => {
		const run = startRun();
		steering.set("joy", 0.2);
		steering.refused(run);
		time = AGAIN_MS;
		timers.shift()!();
		expect(sent.at(-1)).toEqual({ run: "r1", rev: 2, strengths: { joy: 0.2 } });
		steering.refused(run);
		run.take(appliedFrame(2, 9, { seq: 5 }), 0);
		timers.shift()!();
		expect(sent.length).toBe(2);
	});

	test("reset all is one frame", () => {
		steering.set("joy", 0.3);
		steering.set("pirate", -0.1);
		startRun();
		steering.resetAll();
		expect(sent).toEqual([{ run: "r1", rev: 1, strengths: {} }]);
		expect(steering.status("pirate")).toEqual({ kind: "sent", rev: 1 });
	});

	test("what is no number or no change is not sent, and unknown vectors are forgotten", () => {
		startRun();
		steering.set("joy", Number.NaN);
		steering.set("joy", 0);
		expect(sent).toEqual([]);
		steering.set("joy", 0.1);
		steering.keepOnly(new Set(["pirate"]));
		expect(steering.strengths()).toEqual({});
	});
});

test("statuses and layers read as words", () => {
	expect(statusText({ kind: "in-force", position: 45 })).toBe("in force at token 45");
	expect(statusText({ kind: "idle" })).toBe("");
	expect(statusText({ kind: "held" })).toBe("waits for the connection");
	expect(layersText([12])).toBe("layer 12");
	expect(layersText([10, 11, 12])).toBe("layers 10\u201312");
	expect(layersText([3, 9, 20])).toBe("layers 3, 9, 20");
	expect(layersText([1, 3, 5, 7])).toBe("4 layers");
});
