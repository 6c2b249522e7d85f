import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { COLLAPSED_NATS, damageOf, FEWEST, LIMIT, meanEntropy, repetition, WINDOW, words } from "./damage";

const recipes = readFileSync(
	new URL("../../../backend/steersight/vectors/recipes/README.md", import.meta.url),
	"utf8",
);
const unsteered = recipes.split("\n").flatMap((line) => /^\| none \| 0 \| (.*) \|$/.exec(line)?.[1] ?? []);
const never = Array<number>(WINDOW).fill(0.1);

describe("damage", () => {
	test("no unsteered reply of the recipes looks broken at any of its words, however sure the model is", () => {
		expect(unsteered.length).toBeGreaterThanOrEqual(3);
		for (const reply of unsteered) {
			const pieces = reply.split(" ");
			for (let end = 1; end <= pieces.length; end++) {
				expect(damageOf(pieces.slice(0, end).join(" "), never).broken).toBe(false);
			}
		}
	});

	test("of the of the of the does, and needs no entropy for it", () => {
		expect(damageOf("Of the of the OF THE ".repeat(4), [])).toEqual({
			repetition: 0.9,
			entropy: null,
			broken: true,
		});
	});

	test("a loop in which the model is sure is broken at a lower limit", () => {
		// Ten different words, then the same ten again: half of the window.
		const text = "one two three four five six seven eight nine ten ".repeat(2);
		expect(repetition(text)).toBe(0.5);
		expect(damageOf(text, Array(WINDOW).fill(COLLAPSED_NATS)).broken).toBe(false);
		expect(damageOf(text, Array(WINDOW).fill(COLLAPSED_NATS - 0.01)).broken).toBe(true);
		expect(damageOf(text, []).broken).toBe(false);
	});

	test("between the limits it stays what it was", () => {
		const half = "one two three four five six seven eight nine ten ".repeat(2);
		expect(damageOf(half, [], true).broken).toBe(true);
		const nine = `${"one two three four five six seven eight nine ".repeat(2)} ten eleven`;
		expect(repetition(nine)).toBeCloseTo(0.45);
		expect(damageOf(nine, [], true).broken).toBe(false);
		expect(damageOf(nine, never, true).broken).toBe(true);
		expect(damageOf(nine, never).broken).toBe(false);
	});

	test("with too few words or entropies nothing is said", () => {
		expect(repetition("no ".repeat(FEWEST - 1))).toBeNull();
		expect(repetition("no ".repeat(FEWEST))).toBeGreaterThan(LIMIT);
		expect(damageOf("no ".repeat(FEWEST - 1), never, true).broken).toBe(false);
		expect(meanEntropy(Array(FEWEST - 1).fill(1))).toBeNull();
		expect(meanEntropy([...Array(FEWEST).fill(2), null])).toBe(2);
	});

	test("words are folded, kept whole and without punctuation", () => {
		expect(words("Aye, the night\u2019s a-go-go! AYE \u2014 l'\u00e9t\u00e9 2.")).toEqual([
			"aye",
			"the",
			"night\u2019s",
			"a-go-go",
			"aye",
			"l'\u00e9t\u00e9",
			"2",
		]);
	});
});
