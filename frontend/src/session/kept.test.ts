import { beforeEach, describe, expect, test } from "vitest";
import { finishedFrame, manualBatch, startedFrame, testRun, tokensFrame } from "../testing";
import type { Turn } from "./conversation";
import { findKept, Keeper, keep, MOST_CHARACTERS, revive, reviveText } from "./kept";
import { loadToken, saveToken } from "./token";

class TestStorage {
	items = new Map<string, string>();
	full = false;
	getItem = (key: string) => this.items.get(key) ?? null;
	removeItem = (key: string) => this.items.delete(key);
	setItem(key: string, value: string) {
		if (this.full) throw new Error("QuotaExceededError");
		this.items.set(key, value);
	}
}

let storage: TestStorage;
beforeEach(() => {
	storage = new TestStorage();
});

function turn(user: string, reply: string, name = "r1"): Turn {
	const run = testRun({ id: user });
	run.take(startedFrame(["p"], run.id, name), 0);
	run.take(tokensFrame(1, [reply], undefined, name), 0);
	run.delivery.epoch = "e1";
	return { key: user, user, run, before: [], watched: false };
}

describe("a kept conversation", () => {
	test("comes back as texts, names and how each reply ended", () => {
		const [one, two] = [turn("one", "A"), turn("two", "B", "r2")];
		one.run.take(finishedFrame({ reason: "length" }), 0);
		const before = [reviveText("Once ", "c0", manualBatch())];
		two.run.delivery.stopAsked = true;
		two.run.adapter = "poet";
		keep(storage, [one, { ...two, before, watched: true }], "three");
		const found = findKept(storage)!;
		expect([found.asked, found.cut]).toEqual(["three", false]);
		expect(found.turns.map(({ user, before, watched }) => [user, before, watched])).toEqual([
			["one", "", false],
			["two", "Once ", true],
		]);
		const done = revive(found.turns[0]!.run, "c1", false, manualBatch());
		expect([done.replyText(), done.delivery.phase, done.finished?.reason]).toEqual(["A", "done", "length"]);
		expect([
			done.name,
			done.delivery.epoch,
			done.delivery.seq,
			done.delivery.away,
			done.delivery.complete,
		]).toEqual(["r1", "e1", 0, false, false]);
		const live = revive(found.turns[1]!.run, "c2", true, manualBatch());
		expect([done.adapter, live.adapter]).toEqual([null, "poet"]);
		expect([live.replyText(), live.delivery.live, live.delivery.away, live.delivery.stopAsked]).toEqual([
			"B",
			true,
			true,
			true,
		]);
		expect(revive(found.turns[1]!.run, "c2", false, manualBatch()).delivery.phase).toBe("lost");
	});

	test("has room for so much, and the newest come first", () => {
		const long = "x".repeat(MOST_CHARACTERS / 2 - 400);
		keep(storage, [turn("one", long), turn("two", long), turn("three", "C".repeat(500))], null);
		const found = findKept(storage)!;
		expect(found.turns.map(({ user }) => user)).toEqual(["two", "three"]);
		expect(found.cut).toBe(true);
	});

	test("is written when it has changed, and when told", () => {
		const turns = [turn("one", "A")];
		const keeper = new Keeper(storage, () => ({ turns, asked: null }));
		const looked = () => {
			storage.items.clear();
			keeper.look();
			return storage.items.size;
		};
		expect([looked(), looked()]).toEqual([1, 0]);
		turns[0]!.run.take(finishedFrame(), 0);
		expect([looked(), looked()]).toEqual([1, 0]);
		keeper.keep();
		expect(findKept(storage)?.turns.length).toBe(1);
	});

	test("is gone with the chat, and does not mind a storage that is full or missing", () => {
		keep(storage, [turn("one", "A")], null);
		keep(storage, [], null);
		expect([findKept(storage), findKept(null)]).toEqual([null, null]);
		storage.full = true;
		keep(storage, [turn("one", "A")], null);
		expect(findKept(storage)).toBeNull();
	});

	test.each([
		["not JSON", "{"],
		["no map", "7"],
		["no turns", '{"turns": 3}'],
	])("that is %s is none", (_, text) => {
		storage.items.set("steersight.conversation.v1", text);
		expect(findKept(storage)).toBeNull();
	});

	test("loses only the turns and fields that do not read right", () => {
		keep(storage, [turn("one", "A"), turn("two", "B")], null);
		const kept = JSON.parse(storage.items.get("steersight.conversation.v1")!);
		kept.turns[0].run.status = "odd";
		Object.assign(kept.turns[1].run, { run: "<b>", finished: { reason: "stop" }, problem: 3 });
		storage.items.set("steersight.conversation.v1", JSON.stringify(kept));
		const { turns } = findKept(storage)!;
		expect(turns.length).toBe(1);
		expect(turns[0]!.run).toMatchObject({ text: "B", run: null, finished: null, problem: null });
	});
});

test("a token lasts as long as the tab and can be forgotten", () => {
	expect(loadToken(storage)).toBeNull();
	saveToken(storage, "secret");
	expect(loadToken(storage)).toBe("secret");
	saveToken(storage, null);
	expect([loadToken(storage), loadToken(null)]).toEqual([null, null]);
	storage.full = true;
	saveToken(storage, "secret");
	saveToken(null, "secret");
});
