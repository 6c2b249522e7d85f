import { beforeEach, describe, expect, test } from "vitest";
import { settings, welcome } from "../testing/lab";
import { played, type TestServer } from "../testing/server";
import type { Turn } from "./conversation";
import type { Session } from "./session";
import { TurnTree } from "./tree";

const turn = (key: string, user = key) => ({ key, user }) as Turn;
const keys = (turns: readonly Turn[]) => turns.map(({ key }) => key).join("");

describe("TurnTree", () => {
	test("what is put in another's place stands beside it, and each goes on in its own way", () => {
		const tree = new TurnTree();
		tree.path = [turn("a"), turn("b"), turn("c")];
		tree.path = [turn("a"), turn("d")];
		tree.path = [turn("a"), turn("d"), turn("e")];
		expect([keys(tree.path), keys(tree.all), tree.beside("d")]).toEqual(["ade", "abcde", ["b", "d"]]);
		tree.choose("b");
		expect(keys(tree.path)).toBe("abc");
		tree.choose("d");
		expect(keys(tree.path)).toBe("ade");
		// Another first turn.
		tree.path = [turn("f")];
		expect([tree.beside("a"), keys(tree.path)]).toEqual([["a", "f"], "f"]);
		tree.choose("a");
		expect(keys(tree.path)).toBe("ade");
		tree.choose("c");
		expect(keys(tree.path)).toBe("abc");
	});

	test("a turn that changes stays where it is", () => {
		const tree = new TurnTree();
		tree.path = [turn("a"), turn("b")];
		tree.path = [turn("a"), turn("b", "written on")];
		expect([tree.get("b")!.user, tree.beside("b"), tree.parent("b")]).toEqual(["written on", ["b"], "a"]);
		// A first turn that comes to stand behind others.
		tree.path = [turn("x"), turn("a"), turn("b")];
		tree.choose("a");
		expect([keys(tree.path), tree.beside("a")]).toEqual(["xab", ["a"]]);
	});

	test("what is removed is nowhere", () => {
		const tree = new TurnTree();
		tree.path = [turn("a"), turn("b")];
		tree.path = [turn("a"), turn("c")];
		tree.path = [turn("a")];
		tree.remove("c");
		tree.choose("a");
		expect([keys(tree.path), keys(tree.all), tree.get("c")]).toEqual(["a", "ab", null]);
		tree.clear();
		expect([tree.path, tree.all]).toEqual([[], []]);
	});
});

describe("a conversation", () => {
	let server: TestServer;
	let session: Session;
	const replies = () => session.turns.map(({ run }) => run.replyText()).join();

	beforeEach(() => {
		({ server, session } = played());
		server.say(welcome);
		server.turn("one", ["A"], "r1");
		expect(session.regenerate(settings)).toBe(true);
		server.admit("r2", ["B"]);
		server.finish("r2");
	});

	test("a reply that was written again is still there, with its map and all that was asked behind it", () => {
		server.turn("two", ["C"], "r3");
		expect([replies(), session.placeOf(session.turns[0]!)]).toEqual(["B,C", { at: 1, of: 2 }]);
		session.goBeside(session.turns[0]!, -1);
		expect([replies(), session.shown!.name, session.shown!.rows.received]).toEqual(["A", "r1", 1]);
		server.turn("two", ["D"], "r4");
		// What was asked next goes on from the reply that is shown.
		expect(server.starts.at(-1)!.messages.map(({ content }) => content)).toEqual(["one", "A", "two"]);
		session.goBeside(session.turns[0]!, 1);
		expect(replies()).toBe("B,C");
		session.history.undo();
		expect(replies()).toBe("A,D");
		session.goBeside(session.turns[0]!, -1);
		expect(replies()).toBe("A,D");
	});

	test("rows that come late for a reply that is not shown are still taken", () => {
		server.say({ type: "gap", run: "r1", seq: 1, start: 1, count: 1, kept: true, cached: false });
		session.goBeside(session.turns[0]!, -1);
		expect(session.shown!.delivery.missing.count).toBe(1);
	});

	test("nothing is chosen while a reply is written, and a refused one leaves no trace", () => {
		session.regenerate(settings);
		session.goBeside(session.turns[0]!, -1);
		expect(session.placeOf(session.turns[0]!)).toEqual({ at: 2, of: 3 });
		server.refuse(server.starts.at(-1)!.id);
		expect([replies(), session.placeOf(session.turns[0]!)]).toEqual(["B", { at: 1, of: 2 }]);
		session.newChat();
		expect([session.turns, session.history.undo()]).toEqual([[], false]);
	});
});
