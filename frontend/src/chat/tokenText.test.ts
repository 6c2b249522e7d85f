// @vitest-environment happy-dom
import { beforeEach, describe, expect, test } from "vitest";
import type { Run } from "../store/run";
import { appliedFrame, finishedFrame, rowsFrame, startedFrame, testRun, tokensFrame } from "../testing";
import { TokenText } from "./tokenText";

let run: Run;
let root: HTMLElement;
let text: TokenText;
beforeEach(() => {
	run = testRun({ special: [7] });
	run.take(startedFrame(["a", "b"]), 0);
	root = document.createElement("div");
	text = new TokenText(root, run);
});

const tokens = () => [...root.querySelectorAll<HTMLElement>(".token")];
const passages = () => [...root.children].map((passage) => passage.textContent);
const at = (position: number) => root.querySelector<HTMLElement>(`[data-position="${position}"]`);

describe("TokenText", () => {
	test("appends spans for new tokens and touches no older one", () => {
		run.take(tokensFrame(2, ["One", " two"]), 0);
		text.sync();
		const old = tokens();
		const changed: MutationRecord[] = [];
		const observer = new MutationObserver((records) => changed.push(...records));
		observer.observe(root, { childList: true, subtree: true, characterData: true, attributes: true });
		run.take(tokensFrame(4, [" three"]), 0);
		text.sync();
		changed.push(...observer.takeRecords());
		expect(tokens().slice(0, 2)).toEqual(old);
		expect(changed.flatMap((record) => [...record.addedNodes]).map((node) => node.textContent)).toEqual([
			" three",
		]);
		expect(changed.flatMap((record) => [...record.removedNodes])).toEqual([]);
		expect(root.textContent).toBe("One two three");
		text.sync();
		expect(tokens().length).toBe(3);
	});

	test("what comes at once is added in pieces, and read as a whole when all of it is there", () => {
		const words = Array.from({ length: 2500 }, (_, index) => (index === 2400 ? " STOP" : " w"));
		run.take(tokensFrame(2, words), 0);
		run.take(rowsFrame(0, 2502, { rev: (p) => (p < 2000 ? 0 : 1) }), 0);
		run.take(finishedFrame({ stop: " STOP" }), 0);
		const steps = [text.sync(), tokens().length, text.sync(), tokens().length, text.sync()];
		expect(steps).toEqual([false, 1024, false, 2048, true]);
		expect(root.textContent).toBe(" w".repeat(2400));
		expect(at(2001)!.dataset.rev).toBe("1");
		expect(text.sync()).toBe(true);
	});

	test("a text that stands there from before a reload is not taken away to come back in pieces", () => {
		const words = Array.from({ length: 1500 }, () => " w");
		run.delivery.remembered = words.join("");
		expect([text.sync(), root.textContent!.length]).toEqual([true, 3000]);
		run.take(tokensFrame(2, words), 0);
		expect([text.sync(), tokens().length]).toEqual([true, 1500]);
	});

	describe("passages", () => {
		const words = (count: number, end = "") => [...Array(count - 1).fill(" w"), ` w${end}`];

		test("are whole lines: one ends at the first line break when it is long, and no token moves", () => {
			const before = words(40, "\n");
			const long = words(40);
			run.take(tokensFrame(2, [...before, ...long]), 0);
			text.sync();
			expect(passages()).toEqual([[...before, ...long].join("")]);
			const old = tokens();
			const parents = old.map((token) => token.parentElement);
			run.take(tokensFrame(82, [".\n\n", " w", " w"]), 0);
			text.sync();
			expect(passages()).toEqual([[...before, ...long, ".\n\n"].join(""), " w w"]);
			expect(tokens().slice(0, 80)).toEqual(old);
			expect(old.map((token) => token.parentElement)).toEqual(parents);
		});

		test("text without a line break, or with one that is not at a token's end, is not divided", () => {
			const whole = [...words(300), "\n\n    ", ...words(10)];
			run.take(tokensFrame(2, whole), 0);
			text.sync();
			expect(passages()).toEqual([whole.join("")]);
		});

		test("a token is added to the last one only, also in a reply that is long and comes at once", () => {
			const whole = Array.from({ length: 100 }, () => words(10, "\n")).flat();
			run.take(tokensFrame(2, whole), 0);
			text.sync();
			expect(passages().length).toBeGreaterThan(10);
			expect(passages().join("")).toBe(whole.join(""));
			const changed: MutationRecord[] = [];
			const observer = new MutationObserver((records) => changed.push(...records));
			observer.observe(root, { childList: true, subtree: true, characterData: true, attributes: true });
			run.take(tokensFrame(1002, [" one"]), 0);
			text.sync();
			changed.push(...observer.takeRecords());
			expect(changed.map(({ target }) => target)).toEqual([root.lastElementChild]);
		});

		test("a revision in a later one is marked, and its token lit", () => {
			run.take(tokensFrame(2, [...words(70, "\n"), ...words(70, "\n"), " a", " b"]), 0);
			run.take(rowsFrame(0, 143, { rev: (p) => (p < 142 ? 0 : 1) }), 0);
			text.sync();
			text.light(143);
			expect(passages().length).toBe(3);
			expect(root.querySelectorAll("[data-rev]").length).toBe(1);
			expect([at(143)!.dataset.rev, at(143)!.className]).toEqual(["1", "token lit"]);
		});

		test("a stop string goes that begins in one and ends in the next", () => {
			run.take(tokensFrame(2, [...words(70, "\n"), "END", "."]), 0);
			text.sync();
			run.take(finishedFrame({ stop: "w\nEND" }), 0);
			text.sync();
			expect(root.textContent).toBe(run.replyText());
			expect(passages()).toEqual([" w".repeat(69).concat(" "), ""]);
		});
	});

	test("special tokens are not shown and positions stay right behind them", () => {
		run.take(tokensFrame(2, ["x", "<|end|>", "y"], [1, 7, 2]), 0);
		text.sync();
		expect(root.textContent).toBe("xy");
		expect(at(3)).toBeNull();
		expect(at(4)!.textContent).toBe("y");
	});

	test("text is text, never markup", () => {
		run.take(tokensFrame(2, ["<img src=x onerror=alert(1)>"]), 0);
		text.sync();
		expect(root.querySelector("img")).toBeNull();
	});

	test("the stop string goes, also when it begins inside a token", () => {
		run.take(tokensFrame(2, ["One", " tEN", "D", "."]), 0);
		text.sync();
		run.take(finishedFrame({ stop: "END" }), 0);
		text.sync();
		expect(root.textContent).toBe("One t");
		expect(root.textContent).toBe(run.replyText());
	});

	test("marks the first token that a revision can change, and moves the mark when late rows say otherwise", () => {
		run.take(tokensFrame(2, ["c", "d", "e", "f"]), 0);
		run.take(rowsFrame(0, 3), 0);
		run.take(rowsFrame(4, 1, { rev: () => 1 }), 0);
		text.sync();
		// Row 4 was computed from token 4, so that was drawn before; the next one was drawn from row 4.
		expect([at(4)!.dataset.rev, at(5)!.dataset.rev]).toEqual([undefined, "1"]);
		run.take(rowsFrame(3, 1, { rev: () => 1 }), 0);
		text.sync();
		expect([at(4)!.dataset.rev, at(5)!.dataset.rev]).toEqual(["1", undefined]);
	});

	test("says at a mark what its revision changed, as soon as that is told", () => {
		const named = new TokenText(root, run, (id) => (id === "french" ? "French" : id));
		run.take(tokensFrame(2, ["c", "d", "e"]), 0);
		run.take(rowsFrame(0, 3), 0);
		run.take(rowsFrame(3, 1, { rev: () => 1 }), 0);
		named.sync();
		expect(at(4)!.dataset.mark).toBe("rev 1");
		run.take(appliedFrame(1, 3, { strengths: { french: 0.25 } }), 0);
		named.sync();
		expect(at(4)!.dataset.mark).toBe("French 0.25");
	});

	test("a revision that came with the prompt's last position, or before, is marked at the first reply token", () => {
		run.take(tokensFrame(2, ["c", "d"]), 0);
		run.take(rowsFrame(0, 1), 0);
		run.take(rowsFrame(1, 2, { rev: () => 1 }), 0);
		text.sync();
		expect([at(2)!.dataset.rev, at(3)!.dataset.rev]).toEqual(["1", undefined]);

		run = testRun({ id: "c2" });
		run.take(startedFrame(["a", "b", "c"]), 0);
		run.take(tokensFrame(3, ["d"]), 0);
		run.take(rowsFrame(0, 3, { rev: (p) => p }), 0);
		new TokenText(root, run).sync();
		// Both came before it; the newest is the one that it was drawn with.
		expect(at(3)!.dataset.rev).toBe("2");
	});

	test("a mark waits for its token, and goes to the next one that is shown", () => {
		run.take(rowsFrame(0, 3, { rev: (p) => (p === 2 ? 1 : 0) }), 0);
		text.sync();
		run.take(tokensFrame(2, ["c", "<|special|>"], [1, 7]), 0);
		text.sync();
		expect(root.querySelector("[data-rev]")).toBeNull();
		run.take(tokensFrame(4, ["e"]), 0);
		text.sync();
		expect(at(4)!.dataset.rev).toBe("1");
	});

	test("a remembered text stands alone until its tokens have come again", () => {
		run.delivery.remembered = "Onetwo";
		text.sync();
		run.take(tokensFrame(2, ["One"]), 0);
		text.sync();
		expect([root.textContent, root.children.length, tokens().length]).toEqual(["Onetwo", 1, 0]);
		run.take(tokensFrame(3, ["two"]), 0);
		text.sync();
		expect(passages()).toEqual(["Onetwo"]);
		expect([tokens().length, at(3)?.textContent]).toEqual([2, "two"]);
	});

	test("one token is lit at a time", () => {
		run.take(tokensFrame(2, ["c", "d"]), 0);
		text.sync();
		text.light(2);
		text.light(3);
		expect(root.querySelectorAll(".lit").length).toBe(1);
		expect(at(3)!.classList.contains("lit")).toBe(true);
		text.light(0);
		expect(root.querySelectorAll(".lit").length).toBe(0);
	});
});
