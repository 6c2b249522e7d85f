import { describe, expect, test } from "vitest";
import type { Prompt } from "../protocol/types.gen";
import type { RunPhase } from "../store/phase";
import { startedFrame, testRun, tokensFrame } from "../testing";
import { conversation, readPrompt, type Turn } from "./conversation";

/** Spans of [role, pieces]; `<...>` is a special token, and role "" is what belongs to no message. */
function prompt(...parts: [string, string[]][]): { prompt: Prompt; special: Set<number> } {
	const ids: number[] = [];
	const texts: string[] = [];
	const spans: Prompt["spans"] = [];
	for (const [role, pieces] of parts) {
		if (role !== "") spans.push({ role, start: ids.length, end: ids.length + pieces.length });
		for (const piece of pieces) {
			ids.push(piece.startsWith("<") ? 1 : 100);
			texts.push(piece);
		}
	}
	return { prompt: { ids, texts, spans }, special: new Set([1]) };
}
const read = (...parts: [string, string[]][]) => {
	const made = prompt(...parts);
	return readPrompt(made.prompt, made.special);
};

describe("a prompt read back", () => {
	test("the question without what the template puts around it, and before it", () => {
		const user = [
			"<s>",
			"system",
			"\n",
			"You are kind.",
			"<e>",
			"\n",
			"<s>",
			"user",
			"\n",
			"Hello",
			"?",
			"<e>",
			"\n",
		];
		expect(read(["user", user], ["", ["<s>", "assistant", "\n"]])).toEqual({
			history: [],
			user: "Hello?",
			beginning: "",
		});
	});

	test("earlier turns, with roles between special tokens", () => {
		const said = (role: string, text: string): [string, string[]] => [
			role,
			["<h>", role, "</h>", "\n\n", text, "<e>"],
		];
		const parts = [said("system", "Be brief."), said("user", "Is it?"), said("assistant", "Yes.")];
		const { history, user } = read(...parts, said("user", "And now?"), [
			"",
			["<h>", "assistant", "</h>", "\n\n"],
		]);
		expect(history).toEqual([{ user: "Is it?", reply: "Yes." }]);
		expect(user).toBe("And now?");
	});

	test("the beginning of a reply that is written on, with its white space", () => {
		const { user, beginning } = read(
			["user", ["<s>", "user\n", "Tell me.", "<e>", "\n"]],
			["", ["<s>", "assistant\n", "Once ", "upon "]],
		);
		expect([user, beginning]).toEqual(["Tell me.", "Once upon "]);
	});

	test("of a text that is continued, as it was written", () => {
		const prompt = {
			ids: [1, 2, 3, 4],
			texts: ["user\n", " one.", " And", "\nTwo"],
			spans: [
				{ role: "user", start: 0, end: 2 },
				{ role: "assistant", start: 2, end: 3 },
				{ role: "user", start: 3, end: 4 },
			],
		};
		expect(readPrompt(prompt, new Set(), true)).toEqual({
			history: [{ user: "user\n one.", reply: " And" }],
			user: "Two",
			beginning: "",
		});
		expect(readPrompt({ ...prompt, spans: [] }, new Set(), true)).toEqual({
			history: [],
			user: "user\n one. And\nTwo",
			beginning: "",
		});
	});

	test("nothing where the server knows no spans", () => {
		expect(read(["", []]).user).toBe("");
	});
});

test("a question that failed before its first word is not told to the model, half a reply is", () => {
	const turn = (user: string, reply: string, phase: RunPhase): Turn => {
		const run = testRun({ id: user, phase });
		run.take(startedFrame(["p"]), 0);
		if (reply !== "") run.take(tokensFrame(1, [reply]), 0);
		return { key: user, user, run, before: [], watched: false };
	};
	const turns = [turn("one", "", "failed"), turn("two", "Half", "lost"), turn("three", "", "done")];
	expect(conversation(turns, "four", " ", "").map(({ content }) => content)).toEqual([
		"two",
		"Half",
		"three",
		"",
		"four",
	]);
});
