// Runs that a notebook has begun: told of, opened by hand or by an idle page, and put away again.
import { beforeEach, describe, expect, test } from "vitest";
import type { NotebookRuns, RunNotice } from "../protocol/types.gen";
import {
	appliedFrame,
	errorFrame,
	finishedFrame,
	resumedFrame,
	rowsFrame,
	startedFrame,
	tokensFrame,
} from "../testing";
import { settings, welcome } from "../testing/lab";
import { played, TestServer } from "../testing/server";
import { findKept, keep } from "./kept";
import { WRITING_HERE } from "./notebooks";
import type { Session } from "./session";

let server: TestServer;
let session: Session;
beforeEach(() => {
	({ server, session } = played());
	server.say(welcome);
});

const notice = (run: string, state: RunNotice["state"] = "writing"): RunNotice => ({
	run,
	origin: "notebook",
	prompt: "The Eiffel Tower is in",
	since: 0,
	state,
});
const notebook = (...runs: RunNotice[]): NotebookRuns => ({ type: "notebook_runs", runs });
const startedBy = (run: string) => ({
	...startedFrame(["<s>", "The", " Tower"], "t1", run),
	prompt: { ids: [7, 1, 2], texts: ["<s>", "The", " Tower"], spans: [] },
	origin: "notebook" as const,
});

/** The server answers a `resume` of it: two tokens have been written. */
function answer(run = "n1") {
	server.say(resumedFrame({ run, rev: 0 }), startedBy(run));
	server.say(tokensFrame(3, [" is", " in"], undefined, run), { ...rowsFrame(0, 4), run });
}
const shown = () => session.turns.map(({ user, run }) => [user, run.replyText(), run.origin]);

describe("an idle page", () => {
	test("opens a run that is being written by itself, and can steer and stop it", () => {
		server.say(notebook(notice("n1")));
		expect(server.sent.at(-1)).toEqual({ type: "resume", run: "n1", epoch: "e1", after: 0 });
		answer();
		expect(shown()).toEqual([["The Tower", " is in", "notebook"]]);
		expect(session.shown).toBe(session.live);
		expect(session.shown!.tokens.parts().map(({ name }) => name)).toEqual(["text", "continuation"]);
		session.steering.set("joy", 0.4);
		expect(server.sent.at(-1)).toMatchObject({ type: "steer", run: "n1", rev: 1, strengths: { joy: 0.4 } });
		server.say(appliedFrame(1, 4, { run: "n1" }));
		expect(session.steering.status("joy")).toEqual({ kind: "in-force", position: 4 });
		session.stop();
		expect(server.sent.at(-1)).toEqual({ type: "stop", run: "n1" });
	});

	test("opens none that has ended, and none a second time", () => {
		server.say(notebook(notice("n1", "finished")));
		expect(session.turns).toEqual([]);
		server.say(notebook(notice("n2"), notice("n1", "finished")));
		session.notebooks.back();
		server.say(notebook(notice("n2", "waiting")));
		expect(session.turns).toEqual([]);
	});

	test.each([
		["shows a chat", () => server.turn("one", ["A"], "r1")],
		["has words in its composer", () => Object.assign(session, { draft: "Wha" })],
		["has answered a command", () => session.aside("/steer", "No.")],
	])("is not one that %s", (_, use) => {
		use();
		const before = session.turns;
		server.say(notebook(notice("n1")));
		expect(session.turns).toBe(before);
		expect(session.notebooks.runs.map(({ run }) => run)).toEqual(["n1"]);
	});
});

describe("opened beside a chat", () => {
	beforeEach(() => {
		session.steering.set("joy", 0.3);
		server.turn("one", ["A"], "r1");
		server.say(notebook(notice("n1")));
		session.notebooks.open("n1");
		server.say(resumedFrame({ run: "n1", rev: 2, strengths: { joy: -0.5 } }), startedBy("n1"));
	});

	test("it stands alone, and the chat comes back as it was, with its sliders", () => {
		expect([shown(), session.steering.get("joy")]).toEqual([[["The Tower", "", "notebook"]], -0.5]);
		expect([session.notebooks.hasChat, session.placeOf(session.turns[0]!).of]).toEqual([true, 1]);
		session.notebooks.back();
		expect([shown(), session.steering.get("joy")]).toEqual([[["one", "A", "chat"]], 0.3]);
		expect(session.placeOf(session.turns[0]!).of).toBe(1);
		// What is written there goes on being heard of.
		answer();
		session.notebooks.open("n1");
		expect(shown()).toEqual([["The Tower", " is in", "notebook"]]);
		session.steering.set("joy", 0.1);
		expect(server.sent.at(-1)).toMatchObject({ type: "steer", run: "n1" });
	});

	test("nothing is written on by it, and a question begins a chat of its own", () => {
		expect(session.can.ask).toContain("A notebook's text is being written.");
		expect(session.ask("two", settings)).toBe(false);
		server.say(finishedFrame({ run: "n1", reason: "length" }));
		expect([session.can.ask, session.canWriteOn, session.regenerate(settings)]).toEqual([null, false, false]);
		session.ask("two", settings);
		expect(server.starts.at(-1)!.messages).toEqual([{ role: "user", content: "two" }]);
		server.refuse(server.starts.at(-1)!.id);
		expect([shown()[0]![2], session.takeReturned()]).toEqual(["notebook", "two"]);
		session.ask("three", settings);
		server.admit("r2", ["B"]);
		expect(shown()).toEqual([["three", "B", "chat"]]);
		session.goBeside(session.turns[0]!, -1);
		expect(session.placeOf(session.turns[0]!)).toEqual({ at: 1, of: 2 });
		server.finish("r2");
		session.goBeside(session.turns[0]!, -1);
		expect(shown()).toEqual([["one", "A", "chat"]]);
	});

	test("a reload finds the chat", () => {
		const { turns, asked } = session.keepable;
		expect([turns.map(({ user }) => user), asked]).toEqual([["one"], null]);
	});

	test("what the server keeps no longer cannot be opened, and is forgotten once it is not shown", () => {
		server.say(notebook());
		expect(shown()[0]![2]).toBe("notebook");
		session.notebooks.back();
		server.say(notebook());
		expect(session.tree.map(({ turn }) => turn.user)).toEqual(["one"]);
	});
});

test("is not opened over a reply that is being written here", () => {
	session.ask("one", settings);
	server.say(startedFrame(["p"]), notebook(notice("n1")));
	session.notebooks.open("n1");
	expect([session.turns.length, session.notice?.message]).toEqual([1, WRITING_HERE]);
});

test("a link to one leads to it alone, also on a page with a chat", () => {
	server.turn("one", ["A"], "r1");
	session.watch("n1");
	answer();
	expect(shown()).toEqual([["The Tower", " is in", "notebook"]]);
	session.notebooks.back();
	expect(shown()).toEqual([["one", "A", "chat"]]);
});

test("one that the server has not any more says so", () => {
	server.say(notebook(notice("n1")));
	server.say(errorFrame({ code: "unknown_run", run: "n1" }));
	expect(session.turns[0]!.run.problem).not.toBeNull();
	expect(session.live).toBeNull();
});

test("on a page without a chat it comes back after a reload", () => {
	server.say(notebook(notice("n1")));
	answer();
	const storage = new Map<string, string>();
	const items = {
		setItem: (key: string, value: string) => storage.set(key, value),
		removeItem: (key: string) => storage.delete(key),
		getItem: (key: string) => storage.get(key) ?? null,
	};
	keep(items, session.keepable.turns, session.keepable.asked);
	server = new TestServer();
	session = server.session;
	session.restore(findKept(items)!);
	server.open(welcome, notebook(notice("n1")));
	expect(shown()).toEqual([["The Tower", " is in", "notebook"]]);
	expect(session.notebooks.shown).toBe(true);
});

test("the list is the server's: a new line begins with none", () => {
	server.turn("one", ["A"], "r1");
	server.say(notebook(notice("n1")));
	server.breakOff();
	server.comeBack(welcome);
	expect(session.notebooks.runs).toEqual([]);
});
