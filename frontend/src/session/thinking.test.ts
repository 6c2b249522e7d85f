// What of a thinking model's replies goes into the next start: thought and answer apart, and what its chat template
// can be told.
import { expect, test } from "vitest";
import { finishedFrame, modelInfo, startedFrame, tokensFrame, welcomeFrame } from "../testing";
import { TestServer } from "../testing/server";
import { findKept, keep } from "./kept";
import { defaultSettings, loadSettings, saveSettings } from "./settings";
import { checkTemplate, toTemplate } from "./template";

const settings = defaultSettings();
const model = modelInfo({
	thoughts: { start: "<think>", end: "</think>" },
	template: [
		{ name: "enable_thinking", kind: "switch", choices: [], default: true },
		{ name: "effort", kind: "choice", choices: ["low", "high"], default: null },
	],
});

function thought(server: TestServer, run = "r1"): void {
	server.say({ type: "part", run, seq: 2, part: "thought", start: 2 });
	server.say(tokensFrame(1, ["<think>", "Hm", "</think>"], undefined, run));
	server.say({ type: "part", run, seq: 2, part: "answer", start: 4 });
}

function asked(): TestServer {
	const server = new TestServer();
	server.open({ ...welcomeFrame(), model });
	server.session.ask("one", settings);
	server.say(startedFrame(["p"], server.starts[0]!.id, "r1"));
	return server;
}

test("the next start has the answer, and the thought beside it", () => {
	const server = asked();
	thought(server);
	server.say(tokensFrame(4, ["\n\n", "Yes"]), finishedFrame());
	server.session.ask("two", settings);
	expect(server.starts[1]!.messages).toEqual([
		{ role: "user", content: "one" },
		{ role: "assistant", content: "Yes", thought: "Hm" },
		{ role: "user", content: "two" },
	]);
});

test("a reply is written on with its marks, and is one reply afterwards", () => {
	const server = asked();
	server.say({ type: "part", run: "r1", seq: 2, part: "thought", start: 2 });
	server.say(tokensFrame(1, ["<think>", "Hm"]), finishedFrame({ reason: "cancelled" }));
	server.session.writeOn(settings);
	expect(server.starts[1]!.messages.at(-1)).toEqual({ role: "assistant", content: "<think>Hm" });
	server.say(startedFrame(["p"], server.starts[1]!.id, "r2"));
	server.say({ type: "part", run: "r2", seq: 2, part: "thought", start: 1 });
	server.say(tokensFrame(1, ["!", "</think>", "Yes"], undefined, "r2"));
	server.say({ type: "part", run: "r2", seq: 2, part: "answer", start: 3 }, finishedFrame({ run: "r2" }));
	server.session.ask("two", settings);
	expect(server.starts[2]!.messages[1]).toEqual({ role: "assistant", content: "Yes", thought: "Hm!" });
});

test("a reload keeps thought and answer apart", () => {
	const server = asked();
	thought(server);
	server.say(tokensFrame(4, ["Yes"]), finishedFrame());
	const held = new Map<string, string>();
	const storage = {
		getItem: (key: string) => held.get(key) ?? null,
		setItem: (key: string, value: string) => void held.set(key, value),
		removeItem: (key: string) => void held.delete(key),
	};
	keep(storage, server.session.turns, null);
	const later = new TestServer();
	later.session.restore(findKept(storage)!);
	later.open({ ...welcomeFrame({ epoch: "another" }), model });
	later.session.ask("two", settings);
	expect(later.starts[0]!.messages[1]).toEqual({ role: "assistant", content: "Yes", thought: "Hm" });
});

test("of what a template was told, only what this one takes is sent", () => {
	const server = new TestServer();
	server.open({ ...welcomeFrame(), model });
	const template = { enable_thinking: false, effort: "medium", mode: "x" };
	server.session.ask("one", { ...settings, template });
	expect(server.starts[0]!.template).toEqual({ enable_thinking: false });
	expect(toTemplate(model.template, { effort: "low" })).toEqual({ effort: "low" });
});

test("what a template is told is kept, and checked when it is found", () => {
	const held = new Map<string, string>();
	const store = {
		getItem: (key: string) => held.get(key) ?? null,
		setItem: (key: string, value: string) => void held.set(key, value),
	};
	saveSettings({ lasting: store, tab: null }, { ...settings, template: { enable_thinking: false } });
	expect(loadSettings({ lasting: store, tab: null }).template).toEqual({ enable_thinking: false });
	expect(checkTemplate({ "a b": 1, list: [1], ok: "x" })).toEqual({ ok: "x" });
	expect(checkTemplate("x")).toEqual({});
});
