import { beforeEach, expect, test } from "vitest";
import { manualBatch } from "../testing";
import { History, MOST_STEPS, ONE_STEP_MS } from "./history";
import { movedBy } from "./UndoButtons";

let now: number;
let value: number;
let history: History;

beforeEach(() => {
	[now, value] = [0, 0];
	history = new History(() => now, manualBatch());
});

/** Set the value, as a step of a place. */
function set(next: number, place = "a", after = 10_000): void {
	now += after;
	const before = value;
	value = next;
	const to = (wanted: number) => () => {
		value = wanted;
		// What a step sets tells of itself like any other change.
		history.did({ what: "again", place: "b", undo: () => {}, redo: () => {} });
	};
	history.did({ what: `${place} ${next}`, place, undo: to(before), redo: to(next) });
}

test("steps are taken back and again in order, and are no steps themselves", () => {
	set(1);
	set(2);
	set(3);
	expect([history.undoable, history.redoable]).toEqual(["a 3", null]);
	expect([history.undo(), history.undo(), value]).toEqual([true, true, 1]);
	expect([history.undoable, history.redoable]).toEqual(["a 1", "a 2"]);
	history.redo();
	expect(value).toBe(2);
	set(9);
	expect([history.redo(), value]).toEqual([false, 9]);
	while (history.undo());
	expect([value, history.undoable]).toEqual([0, null]);
});

test("what a hand does at one place without a pause is one step", () => {
	set(1);
	for (let i = 2; i < 20; i++) set(i, "a", ONE_STEP_MS - 1);
	set(30, "b", 1);
	set(31, "a", 1);
	set(32, "a", ONE_STEP_MS);
	const seen = [value];
	while (history.undo()) seen.push(value);
	expect(seen).toEqual([32, 31, 30, 19, 0]);
	// After a step back the hand begins anew.
	history.redo();
	set(50, "a", 0);
	history.undo();
	expect(value).toBe(19);
});

test("only so many steps are kept, and none of a conversation that is gone", () => {
	for (let i = 1; i <= MOST_STEPS + 5; i++) set(i);
	while (history.undo());
	expect(value).toBe(5);
	history.clear();
	expect([history.undo(), history.redo(), history.undoable, history.redoable]).toEqual([
		false,
		false,
		null,
		null,
	]);
});

test("a step that fails leaves the history usable", () => {
	history.did({
		what: "x",
		place: "x",
		undo: () => {
			throw new Error("No.");
		},
		redo: () => {},
	});
	expect(() => history.undo()).toThrow("No.");
	set(4);
	history.undo();
	expect(value).toBe(0);
});

test("keys move by the habits of all systems", () => {
	const key = (name: string, held: string) =>
		movedBy({
			key: name,
			ctrlKey: held.includes("c"),
			metaKey: held.includes("m"),
			shiftKey: held.includes("s"),
			altKey: held.includes("a"),
		});
	expect([key("z", "c"), key("z", "m"), key("Z", "cs"), key("z", "ms"), key("y", "c")]).toEqual([
		"undo",
		"undo",
		"redo",
		"redo",
		"redo",
	]);
	expect([key("z", ""), key("z", "ca"), key("y", "m"), key("a", "c")]).toEqual([null, null, null, null]);
});
