import { expect, test } from "vitest";
import { metricInfo, modelInfo } from "../testing";
import { runMeta, testMeta } from "../testing/recording";
import { RecordingError } from "./error";
import { type RunMeta, readMeta } from "./meta";

const parsed = (value: unknown) => JSON.parse(JSON.stringify(value)) as Record<string, unknown>;

test("what was written is read, and what is unknown is left out", () => {
	const meta = testMeta();
	expect(readMeta(parsed(meta))).toEqual(parsed(meta));
	expect(readMeta({ ...parsed(meta), colour: "green" })).toEqual(parsed(meta));
});

test("fields that older files lack have a meaning", () => {
	const { parts, cached, remembered, watched, ...older } = runMeta();
	const [run] = readMeta(
		parsed(testMeta({ runs: [older as typeof older & ReturnType<typeof runMeta>], turns: [] })),
	).runs;
	expect(run).toMatchObject({
		parts: { thought: null, answer: null },
		cached: [],
		remembered: null,
		watched: [],
	});
});

test("a field of the name __proto__ is a field like any other", () => {
	const text = JSON.stringify(testMeta({ turns: [], runs: [runMeta({ template: {} })] }));
	const [run] = readMeta(JSON.parse(text.replace('"template":{}', '"template":{"__proto__":true}'))).runs;
	expect(Object.keys(run!.template)).toEqual(["__proto__"]);
	expect(Object.getPrototypeOf(run!.template)).toBe(Object.prototype);
});

const turn = (id: string, parent: string | null, run = 0, before: number[] = []) => ({
	id,
	parent,
	user: "",
	before,
	run,
});

const withRun = (changes: Partial<RunMeta>) => testMeta({ runs: [runMeta(changes)], turns: [] });
const many = <T>(one: T, count: number) => Array.from({ length: count }, () => one);

test.each<[string, unknown, string]>([
	[
		"more turns than a page shows",
		testMeta({ turns: many(turn("a", null), 2_001) }),
		"turns must be a list of at most",
	],
	[
		"a model of too many layers",
		withRun({ model: modelInfo({ layers: 1e12 }) }),
		"runs[0].model.layers must be at most",
	],
	[
		"a mark that is empty",
		withRun({ model: modelInfo({ thoughts: { start: "<think>", end: "" } }) }),
		"thoughts.end must be a text that is not empty",
	],
	[
		"more revisions than a page compares",
		withRun({ revisions: many(runMeta().revisions[0]!, 16_385) }),
		"runs[0].revisions must be a list of at most",
	],
	["a list", [], "must be a map"],
	["another format", { ...testMeta(), format: "wav" }, "no recording of Steersight"],
	["no version", { ...testMeta(), version: "1" }, "version must be"],
	["a newer one", { ...testMeta(), version: 2 }, "made by a newer Steersight: version 2, this one reads 1"],
	["no turns", { ...testMeta(), turns: null }, "turns must be a list"],
	["a run that is not there", testMeta({ turns: [turn("a", null, 2)] }), 'turn "a" names run 2'],
	["a beginning that is not there", testMeta({ turns: [turn("a", null, 0, [9])] }), 'turn "a" names run 9'],
	["two turns of one name", testMeta({ turns: [turn("a", null), turn("a", null)] }), "two turns have the id"],
	["a parent that is not there", testMeta({ turns: [turn("a", "b")] }), "follows a turn that is not there"],
	["a turn that follows itself", testMeta({ turns: [turn("a", "b"), turn("b", "a")] }), "follows itself"],
	[
		"a position that is none",
		testMeta({ runs: [runMeta({ cached: [[0, -1]] })], turns: [] }),
		"runs[0].cached[0][1]",
	],
	[
		"a metric twice",
		testMeta({ runs: [runMeta({ metrics: [metricInfo(), metricInfo()] })], turns: [] }),
		"twice",
	],
	[
		"an unknown way to end",
		testMeta({
			runs: [runMeta({ finished: { ...runMeta().finished!, reason: "tired" as "stop" } })],
			turns: [],
		}),
		"runs[0].finished.reason must be one of",
	],
	[
		"a question that is no text",
		{ ...testMeta(), turns: [{ ...turn("a", null), user: 7 }] },
		"turns[0].user must be a text",
	],
])("%s is refused", (_, meta, why) => {
	expect(() => readMeta(parsed(meta))).toThrow(RecordingError);
	expect(() => readMeta(parsed(meta))).toThrow(why);
});
