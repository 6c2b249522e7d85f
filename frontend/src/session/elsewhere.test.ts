// Replies that this page did not ask for itself: kept over a reload, or watched from another tab.
import { beforeEach, describe, expect, test } from "vitest";
import { appliedFrame, errorFrame, finishedFrame, resumedFrame, startedFrame, tokensFrame } from "../testing";
import { settings, welcome } from "../testing/lab";
import { played, TestServer } from "../testing/server";
import { NEVER_KNOWN, NO_MAP, OTHER_EPOCH } from "./delivery";
import { findKept, keep } from "./kept";
import type { Session } from "./session";

let server: TestServer;
let session: Session;
beforeEach(() => {
	({ server, session } = played());
});

describe("a reload", () => {
	/** The page as a reload makes it: the same storage, nothing else. */
	function reload() {
		const storage = new Map<string, string>();
		const items = {
			setItem: (key: string, value: string) => storage.set(key, value),
			removeItem: (key: string) => storage.delete(key),
			getItem: (key: string) => storage.get(key) ?? null,
		};
		const { turns, asked } = session.keepable;
		keep(items, turns, asked);
		server = new TestServer();
		session = server.session;
		const kept = findKept(items);
		if (kept !== null) session.restore(kept);
		server.open();
	}

	test("has the texts at once, and fetches the rest: the live reply, then the others", () => {
		server.say(welcome);
		server.turn("one", ["A"], "r1");
		session.steering.set("joy", 0.3);
		session.ask("two", settings);
		server.say(startedFrame(["p", "q"], server.starts[1]!.id, "r2"));
		server.say(tokensFrame(2, ["B"], undefined, "r2"));
		reload();
		expect(session.turns.map(({ user, run }) => [user, run.replyText(), run.delivery.live])).toEqual([
			["one", "A", false],
			["two", "B", true],
		]);
		expect(session.shown).toBe(session.live);
		server.say(welcome);
		expect(server.sent.slice(2)).toMatchObject([
			{ run: "r2", after: 0 },
			{ run: "r1", after: 0 },
		]);
		server.say(resumedFrame({ run: "r2", rev: 4, strengths: { joy: 0.3 } }));
		expect(session.steering.get("joy")).toBe(0.3);
		server.say(startedFrame(["p", "q"], "c2", "r2"));
		server.say(tokensFrame(2, ["B", "C"], undefined, "r2"));
		expect(session.turns[1]!.run.replyText()).toBe("BC");
		session.steering.set("joy", 0.5);
		expect(server.sent.at(-1)).toMatchObject({ type: "steer", run: "r2", rev: 5 });
		server.say(errorFrame({ code: "unknown_run", run: "r1" }));
		const first = session.turns[0]!.run;
		expect([first.delivery.gone, first.delivery.phase, first.problem]).toEqual([NO_MAP, "done", null]);
		server.say(finishedFrame({ run: "r2" }));
		session.ask("three", settings);
		expect(server.starts.at(-1)!.messages.map(({ content }) => content)).toEqual([
			"one",
			"A",
			"two",
			"BC",
			"three",
		]);
		expect(new Set(session.turns.map(({ key }) => key)).size).toBe(3);
	});

	test("before the server took a question gives it back", () => {
		server.say(welcome);
		server.turn("one", ["A"], "r1");
		session.ask("two", settings);
		reload();
		expect([session.turns.length, session.takeReturned()]).toEqual([1, "two"]);
		expect(session.notice?.place).toBe("composer");
	});

	test("before the server took a new try gives the old reply back", () => {
		server.say(welcome);
		server.turn("one", ["A"], "r1");
		session.regenerate(settings);
		reload();
		expect([session.turns[0]!.run.replyText(), session.returned]).toEqual(["A", null]);
	});

	test("that finds another server keeps texts, and says at the live reply that it ended", () => {
		server.say(welcome);
		session.ask("one", settings);
		server.say(startedFrame(["p"]));
		server.say(tokensFrame(1, ["A"]));
		reload();
		server.say({ ...welcome, epoch: "e2" });
		const { run } = session.turns[0]!;
		expect([run.replyText(), run.delivery.phase, run.problem?.message]).toEqual(["A", "lost", OTHER_EPOCH]);
		expect(session.moved).toBeNull();
	});
});

describe("watching a reply of another tab", () => {
	const asked = {
		...startedFrame(["u", "Hi", "r", "Yes", "u", "Why?", "r"], "c1", "r7"),
		prompt: {
			ids: [7, 1, 7, 2, 7, 3, 7],
			texts: ["<s>", "Hi", "<s>", "Yes", "<s>", "Why?", "<s>"],
			spans: [
				{ role: "user", start: 0, end: 2 },
				{ role: "assistant", start: 2, end: 4 },
				{ role: "user", start: 4, end: 6 },
			],
		},
	};

	test("shows the conversation, the reply as it is written and the sliders, and can steer and stop it", () => {
		session.watch("r7");
		server.say(welcome);
		expect(server.sent.at(-1)).toEqual({ type: "resume", run: "r7", epoch: "e1", after: 0 });
		server.say(resumedFrame({ run: "r7", rev: 2, strengths: { joy: 0.2 } }));
		server.say(asked);
		server.say(tokensFrame(7, ["Because"], undefined, "r7"));
		expect(session.turns.map(({ user, run }) => [user, run.replyText()])).toEqual([
			["Hi", "Yes"],
			["Why?", "Because"],
		]);
		expect(session.shown).toBe(session.live);
		expect(session.steering.get("joy")).toBe(0.2);
		session.steering.set("joy", 0.6);
		expect(server.sent.at(-1)).toMatchObject({ type: "steer", run: "r7", rev: 3 });
		session.stop();
		expect(server.sent.at(-1)).toEqual({ type: "stop", run: "r7" });
	});

	test("a new chat here does not end it there", () => {
		server.say(welcome);
		session.watch("r7");
		server.say(resumedFrame({ run: "r7" }));
		session.newChat();
		server.say(asked);
		expect(server.sent.some(({ type }) => type === "stop")).toBe(false);
	});

	test("one that the server does not have says so", () => {
		server.say(welcome);
		session.watch("r7");
		server.say(errorFrame({ code: "unknown_run", run: "r7" }));
		expect([session.live, session.turns[0]!.run.problem?.message]).toEqual([null, NEVER_KNOWN]);
	});

	test("is not begun under a reply that is being written here", () => {
		server.say(welcome);
		session.ask("one", settings);
		server.say(startedFrame(["p"]));
		session.watch("r7");
		expect([session.turns.length, session.notice?.place]).toEqual([1, "page"]);
		session.watch("r1");
		expect(session.shown).toBe(session.turns[0]!.run);
	});

	test("a slider moved there moves here", () => {
		server.say(welcome);
		session.ask("one", settings);
		server.say(startedFrame(["p"]));
		server.say(appliedFrame(1, 1, { seq: 4 }));
		expect(server.sent.at(-1)).toMatchObject({ type: "resume", run: "r1", after: 4 });
		server.say(resumedFrame({ rev: 1, strengths: { joy: 0.7 } }));
		expect(session.steering.get("joy")).toBe(0.7);
		expect(session.steering.status("joy")).toEqual({ kind: "in-force", position: 1 });
	});
});
