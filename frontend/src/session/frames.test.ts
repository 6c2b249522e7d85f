// Where frames go, what they change at their run, and which runs are still heard of.
import { beforeEach, describe, expect, test } from "vitest";
import {
	errorFrame,
	finishedFrame,
	lensFrame,
	resumedFrame,
	rowsFrame,
	startedFrame,
	tokensFrame,
} from "../testing";
import { settings, welcome } from "../testing/lab";
import { played, type TestServer } from "../testing/server";
import { UNKNOWN } from "./delivery";
import type { Session } from "./session";

let server: TestServer;
let session: Session;
beforeEach(() => {
	({ server, session } = played());
});

test("a reply whose rows came in one frame is over like any other", () => {
	server.say(welcome);
	session.ask("one", settings);
	server.say(startedFrame(["p"], server.starts[0]!.id, "r1"));
	server.say(rowsFrame(0, 2));
	const version = session.changed.version;
	server.say(finishedFrame());
	expect(session.changed.version).toBeGreaterThan(version);
	server.say(tokensFrame(1, ["late"]));
	expect(session.turns[0]!.run.tokens.ids).toEqual([]);
});

test("a run that fails says why at its turn, and the conversation goes on", () => {
	server.say(welcome);
	session.ask("one", settings);
	server.say(startedFrame(["p"]));
	const error = { code: "engine_failed" as const, message: "The engine's process ended." };
	server.say(finishedFrame({ reason: "error", error }));
	expect(session.turns[0]!.run.problem).toEqual(error);
	expect(session.ask("two", settings)).toBe(true);
	expect(server.starts[1]!.messages).toEqual([{ role: "user", content: "two" }]);
});

test("a place in the queue is told", () => {
	server.say(welcome);
	session.ask("one", settings);
	server.say(startedFrame(["p"]));
	const version = session.changed.version;
	server.say({ type: "queued", run: "r1", seq: 2, position: 2 });
	expect([session.live?.delivery.queued, session.changed.version > version]).toEqual([2, true]);
});

test("an error of a run stands at the run, one of steering at the sliders, others on the page", () => {
	server.say(welcome);
	session.ask("one", settings);
	server.say(startedFrame(["p"]));
	const error = { type: "error" as const, run: "r1", id: null, rev: null, field: null };
	server.say({ ...error, code: "steering_failed", message: "It is not in force." });
	expect(session.notice).toEqual({ place: "steering", message: "It is not in force." });
	session.dismiss();
	server.say({ ...error, code: "rate_limited", message: "Slower." });
	server.say({ ...error, code: "stale_revision", message: "Revision 1 was had." });
	expect(session.notice).toBeNull();
	expect(server.sent.at(-1)).toMatchObject({ type: "resume", run: "r1" });
	server.say({ ...error, code: "engine_failed", message: "The engine failed." });
	expect(session.turns[0]!.run.problem?.message).toBe("The engine failed.");
	server.say({ ...error, run: null, code: "internal", message: "Odd." });
	expect(session.notice).toEqual({ place: "page", message: "Odd." });
});

test("a run that cannot be shown rightly is stopped", () => {
	server.say(welcome);
	session.ask("one", settings);
	server.say(startedFrame(["p"]));
	server.say(rowsFrame(0, 1, { layers: 2 }));
	server.say(rowsFrame(1, 1, { layers: 3 }));
	expect(server.sent.at(-1)).toEqual({ type: "stop", run: "r1" });
	expect(session.live).toBeNull();
});

test("guesses of the logit lens go to their run", () => {
	server.say(welcome);
	session.ask("one", settings);
	server.say(startedFrame(["p"]));
	server.say(lensFrame(0, 1, { texts: { 10: "A" } }));
	expect(session.shown!.guesses.at(0, 1)?.[0]).toEqual({ id: 10, text: "A", probability: 0.5 });
});

describe("a connection that breaks in a reply", () => {
	const breakOff = () => {
		server.say(welcome);
		session.ask("one", settings);
		server.say(startedFrame(["p"]));
		server.say({ ...tokensFrame(1, ["A"]), seq: 3 });
		server.breakOff();
	};
	const comeBack = (epoch = "e1") => {
		server.comeBack({ ...welcome, epoch });
	};

	test("leaves it live, and it goes on in its place when the line is back", () => {
		breakOff();
		const { run } = session.turns[0]!;
		expect([run.delivery.live, run.delivery.away, session.live]).toEqual([true, true, run]);
		expect(session.can.ask).toBe("There is no connection to the server now.");
		comeBack();
		expect(server.sent.filter(({ type }) => type === "resume")).toEqual([
			{ type: "resume", run: "r1", epoch: "e1", after: 3 },
		]);
		server.say(resumedFrame({ seq: 3 }));
		server.say(tokensFrame(1, ["A", "B"]));
		server.say(finishedFrame());
		expect([run.delivery.away, run.delivery.phase, run.replyText()]).toEqual([false, "done", "AB"]);
		expect(session.moved).toBeNull();
	});

	test("sends sliders and Stop of meanwhile when it is back", () => {
		breakOff();
		session.steering.set("joy", 0.4);
		session.stop();
		expect(session.live?.delivery.stopAsked).toBe(true);
		comeBack();
		server.say(resumedFrame({ rev: 2 }));
		expect(server.sent.slice(-2)).toEqual([
			{ type: "stop", run: "r1" },
			{ type: "steer", run: "r1", rev: 3, strengths: { joy: 0.4 }, settings: {} },
		]);
	});

	test("ends it there when the server no longer has it, and the conversation goes on", () => {
		breakOff();
		comeBack();
		server.say(errorFrame({ code: "unknown_run", run: "r1" }));
		const { run } = session.turns[0]!;
		expect([run.delivery.phase, run.problem?.message, run.replyText()]).toEqual(["lost", UNKNOWN, "A"]);
		expect([session.notice, session.can.ask]).toEqual([null, null]);
		session.ask("two", settings);
		expect(server.starts[1]!.messages.map(({ content }) => content)).toEqual(["one", "A", "two"]);
	});

	test("writes on afterwards what was to be written on", () => {
		breakOff();
		session.writeOn(settings);
		expect(session.canWriteOn).toBe(false);
		comeBack();
		server.say(resumedFrame());
		session.writeOn(settings);
		server.say(finishedFrame({ reason: "cancelled" }));
		expect(server.starts[1]!.write_on).toBe(true);
	});
});

describe("runs that nothing shows any more", () => {
	beforeEach(() => server.say(welcome));

	test("a reply that was regenerated is heard of on, until the conversation is put away", () => {
		session.ask("one", settings);
		const old = server.admit("r1");
		server.finish("r1");
		session.regenerate(settings);
		server.admit("r2");
		server.say({ ...rowsFrame(1, 1), run: "r1" });
		expect(old.rows.columns).toBe(2);
		server.finish("r2");
		session.newChat();
		server.say({ ...rowsFrame(2, 1), run: "r1" });
		expect(old.rows.columns).toBe(2);
	});

	test("of a reply that was written on the text and its marks stay, the numbers go", () => {
		session.ask("one", settings);
		const old = server.admit("r1", ["A", "B"]);
		server.say({ ...rowsFrame(1, 1, { rev: () => 1 }), run: "r1" });
		server.finish("r1", "length");
		session.writeOn(settings);
		expect(old.rows.carries("norm")).toBe(true);
		server.admit("r2");
		expect(old.rows.carries("norm")).toBe(false);
		expect(old.rows.boundaries()).toEqual([{ rev: 1, position: 1 }]);
		expect(session.turns[0]!.before[0]!.replyText()).toBe("AB");
	});

	test("after New chat no run is left in the sliders", () => {
		session.ask("one", settings);
		server.admit("r1");
		server.finish("r1");
		session.newChat();
		expect(session.steering.run).toBeNull();
	});

	test("a run gets no more positions than the model's texts have", () => {
		session.ask("one", settings);
		const run = server.admit("r1");
		server.say({ ...rowsFrame(64, 1), run: "r1" });
		expect([run.delivery.phase, run.rows.columns]).toEqual(["failed", 1]);
	});
});
