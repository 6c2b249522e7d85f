// How a reply is asked for, written again, written on and stopped, and what is left when it is refused.
import { beforeEach, describe, expect, test } from "vitest";
import { finishedFrame, metricInfo, modelInfo, startedFrame, tokensFrame, welcomeFrame } from "../testing";
import { metric, ready, settings, welcome } from "../testing/lab";
import { played, type TestServer } from "../testing/server";
import type { Session } from "./session";

let server: TestServer;
let session: Session;
beforeEach(() => {
	({ server, session } = played());
});

test("the whole conversation travels, system prompt first, special tokens left out", () => {
	server.say(welcome);
	server.turn("one", ["A", "B"], "r1");
	session.ask("two", { ...settings, system: "Be brief." });
	expect(server.starts[1]!.messages).toEqual([
		{ role: "system", content: "Be brief." },
		{ role: "user", content: "one" },
		{ role: "assistant", content: "AB" },
		{ role: "user", content: "two" },
	]);
});

test("the chosen adapter travels while the server has it, and the turn knows what wrote it", () => {
	const chosen = { ...settings, adapter: "poet" };
	server.say(welcomeFrame({ model: modelInfo({ adapters: [{ id: "poet", rank: 8 }] }) }));
	session.ask("one", chosen);
	server.say({ ...startedFrame(["p"], server.starts[0]!.id, "r1"), adapter: "poet" });
	server.say(finishedFrame({ run: "r1" }));
	session.regenerate(settings);
	server.say(startedFrame(["p"], server.starts[1]!.id, "r2"));
	server.say(finishedFrame({ run: "r2" }));
	server.say(welcomeFrame({ epoch: "another", model: modelInfo() }));
	session.ask("two", chosen);
	expect(server.starts.map(({ adapter }) => adapter)).toEqual(["poet", null, null]);
});

test("a refused start gives the words back and leaves the conversation as it was", () => {
	server.say(welcome);
	server.turn("one", ["A"], "r1");
	const before = session.turns;
	const shown = session.shown;
	session.ask("two", settings);
	server.refuse(server.starts[1]!.id);
	expect(session.turns).toBe(before);
	expect(session.shown).toBe(shown);
	expect(session.takeReturned()).toBe("two");
	expect(session.takeReturned()).toBeNull();
	expect(session.notice).toEqual({ place: "composer", message: "All places are taken." });
	expect(session.can.ask).toBeNull();
});

test("regenerate asks the same again; when refused the old reply is still there", () => {
	server.say(welcome);
	server.turn("one", ["A"], "r1");
	session.regenerate(settings);
	expect(server.starts[1]!.messages).toEqual([{ role: "user", content: "one" }]);
	expect(session.turns.length).toBe(1);
	server.refuse(server.starts[1]!.id);
	expect(session.turns[0]!.run.replyText()).toBe("A");
	expect(session.returned).toBeNull();
});

test("a connection that breaks before the server took the start gives the words back", () => {
	server.say(welcome);
	session.ask("one", settings);
	server.breakOff();
	expect(session.turns).toEqual([]);
	expect(session.returned).toBe("one");
});

test("stop names the run; a new chat stops it and hears no more of it", () => {
	server.say(welcome);
	session.ask("one", settings);
	server.say(startedFrame(["p"]));
	session.stop();
	expect(server.sent.at(-1)).toEqual({ type: "stop", run: "r1" });
	session.newChat();
	server.say(tokensFrame(1, ["late"]));
	expect([session.turns, session.shown, session.live]).toEqual([[], null, null]);
	expect(session.can.ask).toBeNull();
});

test("a start admitted after its chat was put away is stopped", () => {
	server.say(welcome);
	session.ask("one", settings);
	session.newChat();
	server.say(startedFrame(["p"], server.starts[0]!.id, "r5"));
	expect(server.sent.at(-1)).toEqual({ type: "stop", run: "r5" });
});

test("a start that was put away and is then refused says nothing in the new chat", () => {
	server.say(welcome);
	session.ask("one", settings);
	session.newChat();
	server.refuse("c1");
	expect(session.notice).toBeNull();
});

test("strengths of the sliders start the run and steer it", () => {
	server.say(welcome);
	session.steering.set("joy", 0.4);
	session.ask("one", settings);
	expect(server.starts[0]!.strengths).toEqual({ joy: 0.4 });
	server.say(startedFrame(["p"]));
	session.steering.set("joy", 0.1);
	expect(server.sent.at(-1)).toEqual({
		type: "steer",
		run: "r1",
		rev: 1,
		strengths: { joy: 0.1 },
		settings: {},
	});
});

test("a start names the metrics of the chosen families, the lens and the entropy", () => {
	const metrics = [
		metric,
		metricInfo({ id: "mlp_norm", family: "parts" }),
		metricInfo({ id: "lens_kl", family: "logit_lens" }),
	];
	server.say({ ...welcome, metrics });
	session.ask("one", settings);
	expect(server.starts[0]).toMatchObject({ metrics: ["norm"], lens: null, entropy: true });
	session.newChat();
	const watch = { ...settings.watch, stride: 2 as const, entropy: false };
	watch.families = { ...watch.families, residual: false, parts: true, logit_lens: true };
	session.ask("two", { ...settings, watch });
	expect(server.starts[1]).toMatchObject({
		metrics: ["mlp_norm"],
		lens: { stride: 2, top: 5 },
		entropy: false,
	});
});

test("a start asks for what tells how steering goes, which may begin at any token", () => {
	const metrics = [
		metric,
		metricInfo({ id: "steering_share", family: "steering" }),
		metricInfo({ id: "projection:joy", family: "projection" }),
		metricInfo({ id: "projection_before:joy", family: "projection" }),
	];
	const watch = { ...settings.watch, entropy: false };
	server.say({ ...welcome, metrics });
	session.ask("one", { ...settings, watch });
	expect(server.starts[0]).toMatchObject({
		metrics: ["norm", "steering_share", "projection:joy", "projection_before:joy"],
		entropy: false,
		write_on: false,
		settings: {},
	});
	session.newChat();
	session.steering.set("joy", 0.2);
	session.ask("two", { ...settings, watch });
	expect(server.starts[1]).toMatchObject({
		metrics: ["norm", "steering_share", "projection:joy", "projection_before:joy"],
		entropy: true,
	});
});

describe("writing a reply on", () => {
	const finished = (run: string, reason: "stop" | "length" | "cancelled") =>
		server.say(finishedFrame({ run, reason }));
	const begin = () => {
		server.say(welcome);
		session.ask("one", settings);
		server.say(startedFrame(["p"], server.starts[0]!.id, "r1"));
		server.say(tokensFrame(1, ["A"], undefined, "r1"));
	};

	test("stops it, keeps its text and goes on in the same reply", () => {
		begin();
		session.steering.set("joy", 0.2);
		session.steering.set("joy", 0);
		expect(session.canWriteOn).toBe(true);
		session.writeOn({ ...settings, system: "Be brief." });
		expect(server.sent.at(-1)).toEqual({ type: "stop", run: "r1" });
		expect(session.canWriteOn).toBe(false);
		server.say(tokensFrame(2, ["B"], undefined, "r1"));
		finished("r1", "cancelled");
		expect(server.starts[1]).toMatchObject({
			write_on: true,
			strengths: {},
			messages: [
				{ role: "system", content: "Be brief." },
				{ role: "user", content: "one" },
				{ role: "assistant", content: "AB" },
			],
		});
		const [turn] = session.turns;
		expect([session.turns.length, turn!.key, turn!.before.length]).toEqual([1, "c1", 1]);
		expect(session.shown).toBe(turn!.run);
		server.say(startedFrame(["p", "AB"], server.starts[1]!.id, "r2"));
		server.say(tokensFrame(2, ["C"], undefined, "r2"));
		finished("r2", "stop");
		expect(session.canWriteOn).toBe(false);
		session.ask("two", settings);
		expect(server.starts[2]!.messages.slice(0, 2)).toEqual([
			{ role: "user", content: "one" },
			{ role: "assistant", content: "ABC" },
		]);
		expect(server.starts[2]!.write_on).toBe(false);
	});

	test("does nothing with a reply that came to its own end meanwhile, or has no text", () => {
		begin();
		session.writeOn(settings);
		finished("r1", "stop");
		expect(server.starts.length).toBe(1);
		session.newChat();
		session.ask("two", settings);
		server.say(startedFrame(["p"], server.starts[1]!.id, "r2"));
		expect(session.canWriteOn).toBe(false);
	});

	test("goes for a stopped reply too; refused, the reply is as it was", () => {
		begin();
		session.stop();
		finished("r1", "cancelled");
		session.writeOn(settings);
		expect(server.starts.length).toBe(2);
		server.refuse(server.starts[1]!.id);
		expect(session.turns[0]!.before).toEqual([]);
		expect(session.turns[0]!.run.replyText()).toBe("A");
		expect([session.returned, session.canWriteOn]).toEqual([null, true]);
	});

	test("regenerate writes all of it anew", () => {
		begin();
		finished("r1", "length");
		session.writeOn(settings);
		server.say(startedFrame(["p", "A"], server.starts[1]!.id, "r2"));
		finished("r2", "stop");
		session.regenerate(settings);
		expect(server.starts[2]!.messages).toEqual([{ role: "user", content: "one" }]);
		expect(session.turns[0]!.before).toEqual([]);
	});
});

describe("what cannot be done now", () => {
	beforeEach(() => server.say(welcome));

	test("a stopped reply is written on only where the engine takes it", () => {
		session.ask("one", settings);
		server.admit("r1");
		server.finish("r1", "cancelled");
		expect(session.canWriteOn).toBe(true);
		for (const state of ["loading", "failed", "draining"] as const) {
			server.say({ ...ready, state, vectors: [] });
			expect(session.canWriteOn).toBe(false);
		}
		server.say(ready);
		expect(session.canWriteOn).toBe(true);
	});

	test("the engine goes while the reply is being stopped: it is said that it was not written on", () => {
		session.ask("one", settings);
		server.admit("r1");
		session.writeOn(settings);
		server.say({ ...ready, state: "loading", vectors: [] });
		server.finish("r1", "cancelled");
		expect(server.starts.length).toBe(1);
		expect(session.notice).toEqual({
			place: "composer",
			message:
				"The reply was not written on. The engine is being started again. You can write your question already.",
		});
	});

	test("a line that takes nothing: regenerating says so, and the old reply stays", () => {
		session.ask("one", settings);
		const run = server.admit("r1");
		server.finish("r1");
		server.takes = false;
		session.regenerate(settings);
		expect(session.turns[0]!.run).toBe(run);
		expect(session.notice?.message).toBe(
			"The reply was not written again. There is no connection to the server now.",
		);
	});
});

describe("a conversation that the server would not take", () => {
	beforeEach(() => server.say(welcome));

	test.each([
		[
			{ max_frame_bytes: 2048 },
			"This conversation has 4 KiB, and the server takes 2 KiB. Shorten it or begin a new one.",
		],
		[{ max_messages: 2 }, "This conversation has 3 messages, and the server takes 2. Begin a new one."],
	])("with %j: it is not sent, and the words stay where they were typed", (limits, message) => {
		session.ask("one", settings);
		server.admit("r1");
		server.finish("r1");
		server.say({ ...welcome, limits: { ...welcome.limits, ...limits } });
		expect(session.ask("x".repeat(3500), settings)).toBe(false);
		expect(server.starts.length).toBe(1);
		expect([session.notice, session.turns.length]).toEqual([{ place: "composer", message }, 1]);
	});
});
