import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { FrameBatch, nextFrame, Signal } from "./signal";

test("listeners hear of any number of changes once per frame", () => {
	const frames: (() => void)[] = [];
	const batch = new FrameBatch((callback) => frames.push(callback));
	const signal = new Signal(batch);
	let heard = 0;
	const stop = signal.subscribe(() => heard++);
	for (let i = 0; i < 100; i++) signal.changed();
	expect(signal.version).toBe(100);
	expect(heard).toBe(0);
	expect(frames.length).toBe(1);
	frames.shift()!();
	expect(heard).toBe(1);
	signal.changed();
	frames.shift()!();
	expect(heard).toBe(2);
	stop();
	signal.changed();
	expect(frames.length).toBe(0);
});

test("a change made while listeners are told is told in the next frame", () => {
	const frames: (() => void)[] = [];
	const batch = new FrameBatch((callback) => frames.push(callback));
	const [first, second] = [new Signal(batch), new Signal(batch)];
	const told: string[] = [];
	first.subscribe(() => {
		told.push("first");
		second.changed();
	});
	second.subscribe(() => told.push("second"));
	first.changed();
	frames.shift()!();
	expect(told).toEqual(["first"]);
	frames.shift()!();
	expect(told).toEqual(["first", "second"]);
});

describe("the page's next frame", () => {
	let frames: (() => void)[];
	beforeEach(() => {
		frames = [];
		vi.useFakeTimers();
		vi.stubGlobal("document", { hidden: false });
		vi.stubGlobal("requestAnimationFrame", (callback: () => void) => frames.push(callback));
		vi.stubGlobal("cancelAnimationFrame", (id: number) => frames.splice(id - 1, 1));
	});
	afterEach(() => {
		vi.useRealTimers();
		vi.unstubAllGlobals();
	});

	test("is the browser's, once", () => {
		let heard = 0;
		nextFrame(() => heard++);
		frames[0]!();
		vi.runAllTimers();
		expect(heard).toBe(1);
	});

	test("comes all the same to a tab that is hidden before its frame, once", () => {
		let heard = 0;
		const batch = new FrameBatch(nextFrame);
		batch.add(() => heard++);
		vi.stubGlobal("document", { hidden: true });
		vi.runAllTimers();
		expect([heard, frames.length]).toEqual([1, 0]);
		batch.add(() => heard++);
		vi.runAllTimers();
		expect(heard).toBe(2);
	});
});
