import { expect, test } from "vitest";
import { settings, welcome } from "../testing/lab";
import { bareRun, runArrays, runMeta, testMeta, testRecording } from "../testing/recording";
import { played } from "../testing/server";
import { titleOf } from "./capture";
import { base64, inside } from "./html";
import { readRecording } from "./read";
import { conversationBytes, fileName, shownBytes, turnOf } from "./save";
import { writeRecording } from "./write";

test.each([
	["What is the capital of France?", "What-is-the-capital-of-France"],
	["../../etc/passwd", "etc-passwd"],
	['a\\b:c*d?e"f<g>h|i', "a-b-c-d-e-f-g-h-i"],
	["   ", "recording"],
	["🌍", "recording"],
	["con", "con-recording"],
	["LPT1.txt", "LPT1-txt"],
	["שלום, 12.5", "שלום-12-5"],
	["x".repeat(300), "x".repeat(48)],
	["trailing. ", "trailing"],
	["\u202egnp.exe", "gnp-exe"],
])("a file about %j is named %j", (title, name) => {
	expect(fileName(title)).toBe(name);
});

test("a title is the first question on one line, and not longer than it can be read", () => {
	expect(titleOf([{ user: "" }, { user: " What\n is\tit? " }])).toBe("What is it?");
	expect(Array.from(titleOf([{ user: "🌍".repeat(500) }])).length).toBe(120);
});

test("one turn of a recording is a recording, with the runs that began it", async () => {
	const turns = [
		{ id: "a", parent: null, user: "One", before: [], run: 0 },
		{ id: "b", parent: "a", user: " Two\nlines", before: [2], run: 1 },
	];
	const runs = [runMeta(), bareRun().meta, runMeta({ name: "beginning" })];
	const whole = { meta: testMeta({ turns, runs }), runs: [runArrays(), bareRun().arrays, runArrays()] };
	const part = turnOf(whole, "b");
	expect(part.meta.turns).toEqual([{ id: "b", parent: null, user: " Two\nlines", before: [0], run: 1 }]);
	expect(part.meta.runs.map(({ name }) => name)).toEqual(["beginning", null]);
	expect(part.meta.title).toBe("Two lines");
	expect(await readRecording(await writeRecording(part))).toEqual(part);
});

test("of a recording without turns a run is taken by its place", () => {
	const part = turnOf(testRecording({ turns: [] }), "1");
	expect([part.meta.turns.length, part.meta.runs.length, part.runs[0]]).toEqual([0, 1, bareRun().arrays]);
});

test("a page's script and style cannot end their elements", () => {
	expect(inside('a="</script><SCRIPT>"', "script")).toBe('a="\\x3c/script>\\x3cSCRIPT>"');
	expect(inside('a{content:"</style>"}', "style")).toBe('a{content:"\\3c /style>"}');
});

test("base64 in slices is base64 of the whole", async () => {
	const bytes = Uint8Array.from({ length: 900_001 }, (_, at) => (at * 7919) % 251);
	let text = "";
	for await (const piece of base64(bytes)) text += piece;
	expect(text).toBe(Buffer.from(bytes).toString("base64"));
});

test("a live conversation is saved with all its branches, the one on the page last", async () => {
	const { server, session } = played();
	server.say(welcome);
	server.turn("Hi?", ["A"], "r1");
	session.regenerate(settings);
	server.admit("r2", ["B"]);
	server.finish("r2");
	session.goBeside(session.turns[0]!, -1);
	const { bytes, title } = await conversationBytes(session, null, new Date());
	const { meta, runs } = await readRecording(bytes);
	expect(title).toBe("Hi?");
	expect(meta.turns.map(({ run }) => meta.runs[run]!.name)).toEqual(["r2", "r1"]);
	expect(runs.map(({ rows }) => [...rows.keys()])).toEqual([["norm"], ["norm"]]);
	const alone = await readRecording((await shownBytes(session, null, new Date())).bytes);
	expect(alone.meta.runs.map(({ name }) => name)).toEqual(["r1"]);
});
