// A session over a recording: it shows what was recorded, takes nothing, and gives back the same recording.
import { expect, test } from "vitest";
import type { ServerFrame } from "../protocol/types.gen";
import { Session } from "../session/session";
import { manualBatch, metricInfo, modelInfo, vectorInfo } from "../testing";
import { settings } from "../testing/lab";
import { bareRun, runArrays, runMeta, testMeta, testRecording } from "../testing/recording";
import { STILL } from "../testing/server";
import { nextTask } from "./breath";
import { captured } from "./capture";
import { UNFINISHED } from "./frames";
import type { RunMeta } from "./meta";
import { playTurns } from "./play";
import { type Recording, toTexts } from "./recording";
import { nameOf, READ_ONLY, recordingTransport } from "./source";

async function played(recording: Recording): Promise<Session> {
	const session = new Session(recordingTransport(recording), null, manualBatch(), STILL, READ_ONLY);
	session.play(playTurns(recording.meta));
	session.connection.connect();
	for (let i = 0; i < 200 && session.turns.some(({ run }) => run.delivery.live); i++) await nextTask();
	return session;
}

/** One run that has all there can be. */
function one(changes: Partial<RunMeta> = {}): Recording {
	const turns = [{ id: "c1", parent: null, user: "Say hello 🌍", before: [], run: 0 }];
	return { meta: testMeta({ turns, runs: [runMeta(changes)] }), runs: [runArrays()] };
}

test("a conversation is shown as it was", async () => {
	const { turns, server, shown, can, connection } = await played(testRecording());
	expect(connection.state.kind).toBe("live");
	expect([server.name, server.engine?.state, server.metrics.length]).toEqual(["lab", "ready", 2]);
	expect(turns.map(({ user }) => user)).toEqual(["Say hello 🌍", "Again"]);
	const [{ run }, { run: second }] = turns as [(typeof turns)[0], (typeof turns)[0]];
	expect(run.replyText()).toBe("<think>Ü</think>Hello 🌍");
	expect([run.delivery.phase, run.adapter, run.tokens.promptLength]).toEqual(["done", null, 3]);
	expect([run.rows.value("norm", 4, 1), run.rows.has(0), run.rows.received]).toEqual([4.25, false, 5]);
	expect([run.rows.entropy(1), run.tokens.rank(4), run.tokens.surprisal(5)]).toEqual([1, 2, null]);
	expect(run.rows.boundaries()).toEqual([{ rev: 1, position: 4 }]);
	expect(run.guesses.at(3, 1)?.map(({ text }) => text)).toEqual(["Ü</think>", "Hello 🌍"]);
	expect(run.cached.first(9)).toEqual({ start: 0, count: 1 });
	expect(shown).toBe(second);
	expect([second.delivery.phase, second.problem?.message]).toEqual(["failed", "The line went down."]);
	expect(can).toEqual({ ask: READ_ONLY, steer: READ_ONLY, watch: READ_ONLY });
});

test("what is played and recorded again is the same", async () => {
	const recording = one();
	const { tree, server, shelf } = await played(recording);
	const again = await captured(tree, server, new Date("2026-11-26T12:00:00Z"), (run) => shelf.hold(run));
	expect(again.runs).toEqual(recording.runs);
	const [before, after] = [recording.meta.runs[0]!, again.meta.runs[0]!];
	// What the chat template was told is in no frame.
	expect(after).toEqual({ ...before, name: nameOf(0), epoch: "recording", template: {} });
	expect(again.meta.title).toBe(recording.meta.title);
});

test("what a run computed by its own code is offered with that run alone, and recorded again", async () => {
	const mine = metricInfo({ id: "live:length", label: "length", family: "live" });
	const rows = runArrays().rows;
	const [watched] = runMeta().watched;
	const live = one({
		metrics: [...runMeta().metrics, mine],
		watched: [{ ...watched!, metrics: [...watched!.metrics, "live:length"] }],
	});
	live.runs = [runArrays({ rows: new Map([...rows, ["live:length", rows.get("norm")!]]) })];
	const { tree, server, shown, shelf, metrics } = await played(live);
	expect(server.metrics.map(({ id }) => id)).toEqual(["norm", "projection:joy"]);
	expect(metrics.map(({ id }) => id)).toEqual(["norm", "projection:joy", "live:length"]);
	expect([shown!.live, shown!.rows.value("live:length", 4, 1)]).toEqual([[mine], 4.25]);
	const again = await captured(tree, server, new Date(), (run) => shelf.hold(run));
	expect(again.runs).toEqual(live.runs);
	expect(again.meta.runs[0]!.metrics).toEqual(live.meta.runs[0]!.metrics);
	expect(again.meta.runs[0]!.watched).toEqual(live.meta.runs[0]!.watched);
});

test("what a run was watched with later is told, and recorded again", async () => {
	const [first] = runMeta().watched;
	const watched = [
		{ ...first!, metrics: ["norm"] },
		{ from: 4, metrics: ["norm", "projection:joy"], lens: null, entropy: true, alternatives: 3 },
	];
	const { tree, server, shelf, shown } = await played(one({ watched }));
	expect(shown?.metrics).toEqual(["norm", "projection:joy"]);
	const again = await captured(tree, server, new Date(), (run) => shelf.hold(run));
	expect(again.meta.runs[0]?.watched).toEqual(watched);
});

test("sliders stand as they stood in the reply that is shown", async () => {
	const session = await played(testRecording());
	expect(session.steering.strengths()).toEqual({});
	session.show(session.turns[0]!.run);
	await nextTask();
	await nextTask();
	expect(session.steering.steered().strengths).toEqual({ joy: 0.5 });
	expect(session.steering.status("joy")).toEqual({ kind: "in-force", position: 4 });
	session.show(session.turns[1]!.run);
	await nextTask();
	await nextTask();
	expect(session.steering.strengths()).toEqual({});
});

test("nothing can be asked, written on or watched in another tab", async () => {
	const session = await played(one({ finished: { ...runMeta().finished!, reason: "length" } }));
	expect(session.ask("More?", settings)).toBe(false);
	expect(session.regenerate(settings)).toBe(false);
	expect([session.canWriteOn, session.watchLink(session.shown!)]).toEqual([false, null]);
	expect(session.turns.length).toBe(1);
});

test("a reply that was being written says so", async () => {
	const run = (await played(one({ finished: null }))).shown!;
	expect([run.delivery.phase, run.problem?.message, run.replyText()]).toEqual([
		"failed",
		UNFINISHED,
		"<think>Ü</think>Hello 🌍",
	]);
});

test("a reply of which only the text is there is shown without a map", async () => {
	const { meta, arrays } = bareRun();
	const empty = { ...arrays, tokens: new Int32Array(0), texts: toTexts([]) };
	const alone = { ...meta, remembered: "All of it.", prompt: { tokens: 0, spans: [] } };
	const turns = [{ id: "a", parent: null, user: "What?", before: [], run: 0 }];
	const recording = { meta: testMeta({ turns, runs: [alone] }), runs: [empty] };
	const { turns: shown, tree, server, shelf } = await played(recording);
	expect(shown[0]!.run.replyText()).toBe("All of it.");
	expect(shown[0]!.run.delivery.gone).toContain("no map");
	const recorded = await captured(tree, server, new Date(), (run) => shelf.hold(run));
	const [again] = recorded.meta.runs;
	expect(again).toMatchObject({ remembered: "All of it.", finished: null, prompt: { tokens: 0 } });
});

test("of a tree the way to the last turn is shown, and the others stand beside it", async () => {
	const turn = (id: string, parent: string | null, run: number) => ({
		id,
		parent,
		user: id,
		before: [],
		run,
	});
	const turns = [turn("a", null, 0), turn("b", "a", 1), turn("c", "a", 2)];
	const runs = [runMeta(), bareRun().meta, runMeta({ revisions: [] })];
	const arrays = [runArrays(), bareRun().arrays, runArrays({ revisions: new Int32Array(6) })];
	const session = await played({ meta: testMeta({ turns, runs }), runs: arrays });
	expect(session.turns.map(({ user }) => user)).toEqual(["a", "c"]);
	expect(session.placeOf(session.turns[1]!)).toEqual({ at: 1, of: 2 });
	session.show(session.turns[0]!.run);
	for (let i = 0; i < 3; i++) await nextTask();
	expect(session.steering.strengths()).toEqual({ joy: 0.5 });
	session.goBeside(session.turns[1]!, -1);
	expect(session.turns.map(({ user }) => user)).toEqual(["a", "b"]);
	for (let i = 0; i < 3; i++) await nextTask();
	// Of a run that says nothing of it, no slider is known to have stood anywhere.
	expect(session.steering.strengths()).toEqual({});
	const again = await captured(session.tree, session.server, new Date(), (run) => session.shelf.hold(run));
	expect(again.meta.turns.map(({ id, parent, run }) => [id, parent, run])).toEqual([
		["recorded:a", null, 0],
		["recorded:b", "recorded:a", 1],
		["recorded:c", "recorded:a", 2],
	]);
});

test("runs without turns are shown one after the other, with the questions that their prompts tell", async () => {
	const runs = [runMeta({ prompt: { tokens: 3, spans: [{ role: "user", start: 0, end: 3 }] } })];
	const session = await played({ meta: testMeta({ turns: [], runs }), runs: [runArrays()] });
	expect(session.turns.map(({ user }) => user)).toEqual(["Say hello"]);
});

test("runs of several models know their own special tokens", async () => {
	const other = runMeta({ model: modelInfo({ id: "other", special_ids: [6] }), metrics: [metricInfo()] });
	const recording = testRecording({ runs: [other, runMeta({ vectors: [vectorInfo({ id: "calm" })] })] });
	const rows = new Map([...runArrays().rows].slice(0, 1));
	const { turns, server, moved } = await played({ ...recording, runs: [runArrays({ rows }), runArrays()] });
	expect(turns.map(({ run }) => [run.model, [...run.tokens.specialIds]])).toEqual([
		["other", [6]],
		["tiny", [7]],
	]);
	expect([server.model?.id, server.vectors.map(({ id }) => id), moved]).toEqual([
		"tiny",
		["joy", "calm"],
		null,
	]);
});

test("whatever else is asked of a recording is refused with a sentence", async () => {
	const heard: ServerFrame[] = [];
	const line = recordingTransport(one())({
		onOpen: () => {},
		onFrame: (frame) => heard.push(frame),
		onBadFrame: () => {},
		onClose: () => {},
	});
	line.send({ type: "hello", token: null });
	line.send({ type: "start", id: "x", messages: [] });
	line.send({ type: "steer", run: nameOf(0), rev: 1, strengths: {} });
	line.send({ type: "stop", run: nameOf(0) });
	line.send({ type: "resume", run: "elsewhere", epoch: "recording" });
	line.send({ type: "ping", t: 5 });
	expect(heard.map((frame) => ("message" in frame ? frame.message : frame.type))).toEqual([
		"welcome",
		READ_ONLY,
		READ_ONLY,
		READ_ONLY,
		"The recording has no such reply.",
		"pong",
	]);
	line.send({ type: "rows", run: nameOf(0), start: 2, count: 2 });
	for (let i = 0; i < 5; i++) await nextTask();
	expect(heard.at(-1)).toMatchObject({ type: "rows", start: 2, count: 2, revs: [0, 0] });
	line.close();
	expect(line.send({ type: "ping", t: 6 })).toBe(false);
});
