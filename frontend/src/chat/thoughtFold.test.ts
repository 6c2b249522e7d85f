// @vitest-environment happy-dom
import { beforeEach, expect, test } from "vitest";
import type { Part } from "../protocol/types.gen";
import { Run } from "../store/run";
import { finishedFrame, modelInfo, startedFrame, testRun, tokensFrame } from "../testing";
import { TokenText } from "./tokenText";

const MARKS = { start: "<think>", end: "</think>" };
const part = (name: "thought" | "answer", start: number): Part => ({
	type: "part",
	run: "r1",
	seq: 1,
	part: name,
	start,
});

let run: Run;
let root: HTMLElement;
let text: TokenText;
beforeEach(() => {
	run = testRun({ special: [7] });
	run.know(modelInfo({ thoughts: MARKS, special_ids: [7] }));
	run.take(startedFrame(["a", "b"]), 0);
	root = document.createElement("div");
	text = new TokenText(root, run);
});

const fold = () => root.querySelector("details");
const read = (element: Element | null) =>
	[...(element?.querySelectorAll(".token:not(.put-away)") ?? [])].map((one) => one.textContent).join("");
const answer = () => {
	const copy = root.cloneNode(true) as HTMLElement;
	copy.querySelector("details")?.remove();
	return read(copy);
};
const take = (...frames: Parameters<Run["take"]>[0][]) => {
	for (const frame of frames) run.take(frame, 0);
	text.sync();
};

test("a mark in pieces, the thought and the answer come one after the other", () => {
	take(tokensFrame(2, ["<", "think"]));
	expect(fold()).toBeNull();
	take(part("thought", 5), tokensFrame(4, [">", "\n", "Hm"]));
	expect(fold()!.open).toBe(true);
	expect(fold()!.querySelector("summary")!.textContent).toBe("Thinking, 2 tokens");
	expect(read(fold())).toBe("Hm");
	take(tokensFrame(7, [".", "</", "think"]));
	take(part("answer", 11), tokensFrame(10, [">"]));
	expect(fold()!.open).toBe(false);
	expect(fold()!.querySelector("summary")!.textContent).toBe("Thought, 6 tokens");
	expect(read(fold())).toBe("Hm.");
	take(tokensFrame(11, ["\n\n", "Yes", "\n", "!"]), finishedFrame());
	expect(answer()).toBe("Yes\n!");
	expect(run.tokens.parts().slice(-2)).toEqual([
		{ name: "thought", start: 2, end: 11 },
		{ name: "answer", start: 11, end: 15 },
	]);
});

test("all at once is the same as one after the other", () => {
	const texts = ["<", "think>", "Hm", "</think>", "Yes"];
	take(part("thought", 4), part("answer", 6), tokensFrame(2, texts), finishedFrame());
	expect([read(fold()), answer(), fold()!.open]).toEqual(["Hm", "Yes", false]);
});

test("a thought that the chat template has begun has no mark of its own", () => {
	take(part("thought", 2), part("answer", 4), tokensFrame(2, ["Hm", "</think>", "Yes"]));
	expect([read(fold()), answer()]).toEqual(["Hm", "Yes"]);
	expect(run.written()).toBe("Hm</think>Yes");
});

test("a person's choice stays", () => {
	take(part("thought", 2), tokensFrame(2, ["Hm"]));
	fold()!.querySelector("summary")!.click();
	fold()!.open = false;
	take(tokensFrame(3, [" hm"]));
	expect(fold()!.open).toBe(false);
	fold()!.querySelector("summary")!.click();
	fold()!.open = true;
	take(part("answer", 5), tokensFrame(4, ["</think>", "Yes"]), finishedFrame());
	expect(fold()!.open).toBe(true);
});

test("a reply without a thought has no fold", () => {
	take(part("answer", 3), tokensFrame(2, ["Yes", "."]), finishedFrame());
	expect(fold()).toBeNull();
	expect(root.textContent).toBe("Yes.");
	expect(run.tokens.parts().at(-1)).toEqual({ name: "reply", start: 2, end: 4 });
});

test("special tokens are read nowhere and written on with", () => {
	const ids = [7, 20, 7, 21, 22, 7];
	take(part("thought", 5), tokensFrame(2, ["<|c|>", "analysis", "<|m|>", "Hm", " hm", "<|end|>"], ids));
	expect(read(fold())).toBe("Hm hm");
	expect(run.written()).toBe("<|c|>analysis<|m|>Hm hm");
});

test("a remembered reply is parted by its marks", () => {
	const kept = new Run("c9", { sentAt: null, phase: "done" });
	kept.delivery.remembered = "<think>\nHm\n</think>\n\nYes";
	kept.delivery.rememberedMarks = MARKS;
	new TokenText(root, kept).sync();
	expect(fold()!.querySelector("summary")!.textContent).toBe("Thought");
	expect(fold()!.querySelector(".thought-text")!.textContent).toBe("Hm");
	expect(root.querySelector(".remembered")!.textContent).toBe("Yes");
});
