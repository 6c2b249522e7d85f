// Which run's numbers stand at which column of a conversation's map.
import { beforeEach, describe, expect, test } from "vitest";
import { chance, gapFrame, rowsFrame, startedFrame, testRun, tokensFrame } from "../testing";
import { valueAt } from "./field";
import { CHUNK } from "./rows";
import type { Run } from "./run";
import { Strip, StripField } from "./strip";

/** A run over these tokens, of which so many are its prompt; its numbers are `mark` and its position. */
function turn(
	ids: readonly number[],
	prompt: number,
	mark: number,
	rows: [number, number] = [0, ids.length - 1],
): Run {
	const run = testRun();
	const started = startedFrame(ids.slice(0, prompt).map(String));
	run.take({ ...started, prompt: { ...started.prompt, ids: ids.slice(0, prompt) }, model: "tiny" }, 0);
	const reply = ids.slice(prompt);
	run.take(tokensFrame(prompt, reply.map(String), reply), 0);
	const value = (position: number) => mark + (position % 100) / 128;
	run.take(rowsFrame(rows[0], rows[1] - rows[0], { value, rev: (p) => (p >= prompt ? mark : 0) }), 0);
	return run;
}

const count = (n: number) => Array.from({ length: n }, (_, i) => 10 + i);
const marks = (strip: Strip, field: StripField) =>
	Array.from({ length: strip.run.tokens.length }, (_, p) => Math.floor(valueAt(field, p, 0)));

let first: Run;
let second: Run;

beforeEach(() => {
	first = turn(count(6), 3, 1);
	// Its prompt is the first turn and two tokens more; it has read all of it once more.
	second = turn([...count(6), 70, 71, 72, 73], 8, 2);
});

describe("Strip", () => {
	test("what was written before stands as it was computed then, and what nobody has computed as it was read", () => {
		const strip = new Strip(second, [first]).refresh();
		const field = new StripField(strip, "norm");
		field.sync();
		// The first run has no row of its last token: nothing was computed from it there.
		expect(marks(strip, field)).toEqual([1, 1, 1, 1, 1, 2, 2, 2, 2, Number.NaN]);
		expect([strip.owner(2), strip.owner(5), strip.owner(8)]).toEqual([first, second, second]);
		expect([strip.received, strip.columns, strip.layers, field.first, field.empty]).toEqual([
			9,
			9,
			2,
			1,
			false,
		]);
		expect(strip.boundaries().map(({ rev, position }) => [rev, position])).toEqual([
			[1, 3],
			[2, 8],
		]);
	});

	test("a person may have it as the shown run has read it", () => {
		second.reread = true;
		const strip = new Strip(second, [first]).refresh();
		expect([strip.segments, strip.owner(1), strip.received]).toEqual([[], second, 9]);
		second.reread = false;
		expect(strip.refresh().owner(1)).toBe(first);
	});

	test("runs are joined as far as their tokens are the same, by the same model", () => {
		const other = turn([10, 11, 99, 13], 2, 1);
		expect(new Strip(second, [other]).refresh().segments).toEqual([{ run: other, end: 2 }]);
		const foreign = turn(count(6), 3, 1);
		foreign.model = "other";
		const adapted = turn(count(6), 3, 1);
		adapted.adapter = "a";
		expect(new Strip(second, [foreign, adapted]).refresh().segments).toEqual([]);
		// A later turn adds only what is behind the earlier one.
		const between = turn([...count(6), 70, 71], 7, 3);
		expect(new Strip(second, [first, between]).refresh().segments.map(({ end }) => end)).toEqual([6, 8]);
	});

	test("a prompt that is not known yet, and turns that come back late, are joined when they are there", () => {
		const empty = testRun();
		const strip = new Strip(empty, [first]).refresh();
		expect(strip.segments).toEqual([]);
		const late = testRun();
		const whole = new Strip(second, [late]).refresh();
		const field = new StripField(whole, "norm");
		field.sync();
		expect(marks(whole, field).slice(0, 3)).toEqual([2, 2, 2]);
		const started = startedFrame(["a", "b", "c"]);
		late.take({ ...started, prompt: { ...started.prompt, ids: [10, 11, 12] }, model: "tiny" }, 0);
		late.take(rowsFrame(0, 2, { value: () => 5 }), 0);
		whole.refresh();
		field.sync();
		expect(marks(whole, field).slice(0, 4)).toEqual([5, 5, 2, 2]);
	});

	test("counts what nobody has computed", () => {
		const third = turn([...count(6), 70, 71, 72, 73], 8, 2, [7, 9]);
		third.take(gapFrame(0, 7, { cached: true }), 0);
		expect(new Strip(third, []).refresh().unread).toBe(7);
		// The first turn has rows of five of its six tokens.
		expect(new Strip(third, [first]).refresh().unread).toBe(2);
	});

	test("however rows come, each column is its owner's, over the borders of chunks too", () => {
		const random = chance(3);
		const ids = count(3 * CHUNK);
		const ends = [400, CHUNK + 20, 2 * CHUNK, 2 * CHUNK + 300];
		const runs = ends.map((end, index) => {
			const run = testRun();
			const started = startedFrame([]);
			const prompt = index === 0 ? 100 : ends[index - 1]! + 7;
			run.take({ ...started, prompt: { ids: ids.slice(0, prompt), texts: [], spans: [] }, model: "tiny" }, 0);
			run.take(tokensFrame(prompt, [], ids.slice(prompt, end)), 0);
			return run;
		});
		const pieces = runs.flatMap((run, index) =>
			Array.from({ length: Math.ceil(ends[index]! / 37) }, (_, i) => ({ run, index, start: 37 * i })),
		);
		pieces.sort(() => random() - 0.5);
		const strip = new Strip(runs.at(-1)!, runs.slice(0, -1));
		const field = new StripField(strip, "norm");
		pieces.forEach(({ run, index, start }, nth) => {
			if (random() < 0.1) return;
			const value = (p: number) => 10 * index + (p % 9);
			run.take(rowsFrame(start, Math.min(37, ends[index]! - start), { value }), 0);
			if (nth % 11 !== 0) return;
			strip.refresh();
			field.sync();
			for (let chunk = 0; chunk < 3; chunk++) field.chunk(chunk);
		});
		strip.refresh();
		field.sync();
		let wrong = 0;
		for (let position = 0; position < ends.at(-1)!; position++) {
			const owner = strip.owner(position);
			const index = runs.findIndex((run, at) => position < ends[at]! && run.rows.has(position));
			if (owner !== (runs[index] ?? runs.at(-1))) wrong++;
			const value = valueAt(field, position, 1);
			if (!Object.is(value, index < 0 ? Number.NaN : 10 * index + (position % 9))) wrong++;
		}
		expect(wrong).toBe(0);
	});
});

test("numbers on the shelf keep a map from being drawn only where they stand in it", () => {
	const long = CHUNK + 100;
	const early = turn(count(long), 3, 1);
	const late = turn([...count(long), 7, 8, 9, ...count(CHUNK)], long + 2, 2);
	const strip = new Strip(late, [early]).refresh();
	expect([...strip.parts]).toEqual([
		[early, new Set([0, 1])],
		[late, "all"],
	]);
	const field = new StripField(strip, "norm");
	const mid = turn([...count(CHUNK), 5], CHUNK - 1, 3);
	const three = new Strip(late, [mid, early]).refresh();
	// What the first has the second need not have.
	expect(three.parts.get(mid)).toEqual(new Set([0]));
	expect(three.parts.get(early)).toEqual(new Set([1]));
	expect(field.shelved).toBe(false);
	const part = early.rows.part(1);
	early.rows.shelve(1);
	expect([field.shelved, strip.shelved, new Strip(mid).shelved]).toEqual([true, true, false]);
	early.rows.bring(1, part);
	expect(field.shelved).toBe(false);
});

test("a turn whose numbers are lost leaves its place to the next that has read it", () => {
	const strip = new Strip(second, [first]).refresh();
	expect(strip.owner(0)).toBe(first);
	first.rows.dropNumbers();
	first.giveUp("Lost.");
	expect(strip.refresh().owner(0)).toBe(second);
});
