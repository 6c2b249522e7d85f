import { unzipSync, zipSync } from "fflate";
import { expect, test } from "vitest";
import { chance, metricInfo, modelInfo } from "../testing";
import { bareRun, runArrays, runMeta, testMeta, testRecording } from "../testing/recording";
import { RecordingError } from "./error";
import type { RunMeta } from "./meta";
import { readRecording } from "./read";
import { type RunArrays, toTexts } from "./recording";
import { writeRecording } from "./write";

function written(meta: Partial<RunMeta>, arrays: Partial<RunArrays>): Promise<Uint8Array> {
	return writeRecording({
		meta: testMeta({ runs: [runMeta(meta)], turns: [] }),
		runs: [runArrays(arrays)],
	});
}

test("what was written is read", async () => {
	const recording = testRecording();
	expect(await readRecording(await writeRecording(recording))).toEqual(recording);
});

test("the same recording gives the same bytes", async () => {
	const [one, other] = [await writeRecording(testRecording()), await writeRecording(testRecording())];
	expect(one).toEqual(other);
});

test("a member that nobody knows is left alone", async () => {
	const files = unzipSync(await writeRecording(testRecording()));
	const more = zipSync({ ...files, "runs/0/colours.npy": Uint8Array.of(1, 2, 3) });
	expect(await readRecording(more)).toEqual(testRecording());
});

test.each<[string, Partial<RunMeta>, Partial<RunArrays>, string]>([
	["texts of other tokens", {}, { texts: toTexts(["a"]) }, "text_offsets.npy has 2 numbers, and must have 8"],
	[
		"texts that go back",
		{},
		{ texts: { bytes: new Uint8Array(2), offsets: Int32Array.of(0, 2, 1, 2, 2, 2, 2, 2) } },
		"text_offsets.npy does not divide",
	],
	["a prompt beyond the tokens", { prompt: { tokens: 8, spans: [] } }, {}, "the prompt alone has 8"],
	["too few ranks", {}, { ranks: Int32Array.of(1) }, "ranks.npy has 1 numbers, and must have 4"],
	["a revision before 0", {}, { revisions: Int32Array.of(0, 0, 0, 0, 0, -2) }, "revision before 0"],
	["more columns than tokens", {}, { revisions: new Int32Array(9) }, "revisions.npy goes further"],
	["rows of other columns", {}, { revisions: new Int32Array(5), rows: runArrays().rows }, "rows/norm.npy"],
	[
		"rows of other layers than the model",
		{ model: modelInfo({ layers: 3 }) },
		{},
		"has 2 layers, and the run has 3",
	],
	["a metric without rows", { metrics: [metricInfo({ id: "none" })] }, {}, "has no runs/0/rows/none.npy"],
	["entropy of other columns", {}, { entropy: new Uint16Array(2) }, "entropy.npy has 2 numbers"],
	[
		"guesses beyond the run",
		{},
		{ lens: { ...runArrays().lens!, positions: Int32Array.of(2, 3, 9) } },
		"lens/positions",
	],
	[
		"guesses of other layers",
		{},
		{ lens: { ...runArrays().lens!, layers: Int32Array.of(1, 5) } },
		"lens/layers",
	],
	[
		"fewer alternatives",
		{},
		{ alternatives: { ...runArrays().alternatives!, positions: Int32Array.of(2) } },
		"alternatives/ids",
	],
	["names without texts", {}, { names: { ids: Int32Array.of(1), texts: toTexts([]) } }, "names/text_offsets"],
	[
		"a revision beyond the run",
		{ revisions: [{ rev: 0, position: 9, strengths: {}, settings: {} }] },
		{},
		"runs[0].revisions",
	],
	["a part beyond the run", { parts: { thought: 8, answer: null } }, {}, "runs[0].parts"],
	[
		"a cache that names a position again and again",
		{
			cached: [
				[0, 3],
				[0, 3],
				[0, 3],
			],
		},
		{},
		"runs[0].cached",
	],
	["a cache beyond the run", { cached: [[2, 6]] }, {}, "runs[0].cached"],
	[
		"a span beyond the prompt",
		{ prompt: { tokens: 3, spans: [{ role: "user", start: 0, end: 4 }] } },
		{},
		"runs[0].prompt.spans",
	],
])("%s are refused", async (_, meta, arrays, why) => {
	const bytes = await written(meta, arrays).catch((error: Error) => error);
	if (bytes instanceof Error) throw bytes;
	await expect(readRecording(bytes)).rejects.toThrow(RecordingError);
	await expect(readRecording(bytes)).rejects.toThrow(why);
});

test("more tokens than a page shows are refused", { timeout: 30_000 }, async () => {
	const length = 2 ** 18 + 4;
	const bytes = await written(
		{},
		{
			tokens: new Int32Array(length),
			texts: { bytes: new Uint8Array(0), offsets: new Int32Array(length + 1) },
		},
	);
	await expect(readRecording(bytes)).rejects.toThrow("tokens, more than a page shows");
});

test("a run of which nothing but a token is known is read", async () => {
	const { meta, arrays } = bareRun();
	const recording = { meta: testMeta({ runs: [meta], turns: [] }), runs: [arrays] };
	expect(await readRecording(await writeRecording(recording))).toEqual(recording);
});

test("whatever a file holds, a recording comes out or a sentence", { timeout: 30_000 }, async () => {
	const whole = await writeRecording(testRecording());
	const stored = zipSync(unzipSync(whole), { level: 0 });
	const random = chance(19);
	const below = (count: number) => Math.floor(random() * count);
	let refused = 0;
	for (let i = 0; i < 600; i++) {
		const source = i % 2 === 0 ? whole : stored;
		let bytes = source.slice();
		const damage = below(4);
		// Bits flipped, the end or a middle cut out, a piece doubled, bytes of the headers set to extremes.
		if (damage === 0) for (let n = below(8) + 1; n > 0; n--) bytes[below(bytes.length)]! ^= 1 << below(8);
		if (damage === 1) {
			const [from, count] = [below(bytes.length), below(200) + 1];
			bytes = Uint8Array.from([...bytes.subarray(0, from), ...bytes.subarray(from + count)]);
		}
		if (damage === 2) {
			const [from, count] = [below(bytes.length), below(500) + 1];
			const piece = bytes.subarray(from, from + count);
			bytes = Uint8Array.from([...bytes.subarray(0, from), ...piece, ...bytes.subarray(from)]);
		}
		if (damage === 3)
			bytes.fill(below(2) * 255, ...((at) => [at, at + below(6) + 1] as const)(below(bytes.length)));
		try {
			await readRecording(bytes);
		} catch (error) {
			expect(error).toBeInstanceOf(RecordingError);
			expect((error as Error).message).toMatch(/^[\w"].{10,}\.$/s);
			refused += 1;
		}
	}
	expect(refused).toBeGreaterThan(300);
});
