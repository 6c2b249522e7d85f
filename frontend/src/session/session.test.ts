import { beforeEach, describe, expect, test } from "vitest";
import type { TransportHandlers } from "../connection/transport";
import type { ClientFrame, Engine, ServerFrame, Start, VectorInfo, Welcome } from "../protocol/types.gen";
import {
	finishedFrame,
	lensFrame,
	manualBatch,
	metricInfo,
	resumedFrame,
	rowsFrame,
	startedFrame,
	tokensFrame,
	welcomeFrame,
} from "../testing";
import { NEVER_KNOWN, NO_MAP, OTHER_EPOCH, UNKNOWN } from "./delivery";
import { findKept, keep } from "./kept";
import { Session } from "./session";
import { defaultSettings } from "./settings";

const vector: VectorInfo = {
	id: "joy",
	label: "Joy",
	description: "",
	layers: [3],
	range: [-1, 1],
	suggested: 0.5,
	kind: "direction",
	operator: "add",
	operators: ["add", "ablate"],
	feature: null,
	own: false,
};
const metric = metricInfo();
const model = {
	id: "m",
	layers: 2,
	hidden_size: 4,
	vocab_size: 9,
	dtype: "float32",
	max_model_len: 64,
	special_ids: [7],
	chat: "template" as const,
};
const welcome = welcomeFrame({ model, metrics: [metric], vectors: [vector] });
const engineReady: Engine = {
	type: "engine",
	state: "ready",
	stage: "Ready.",
	progress: 1,
	model,
	metrics: [metric],
	vectors: [vector],
};
const settings = defaultSettings();

let session: Session;
let server: TransportHandlers;
let sent: ClientFrame[];

function open() {
	sent = [];
	session = new Session(
		(handlers) => {
			server = handlers;
			return {
				send: (frame) => sent.push(frame) > 0,
				close: () => {},
			};
		},
		null,
		manualBatch(),
		{ now: () => 0, random: () => 0, setTimeout: () => 0, clearTimeout: () => {} },
	);
	session.connection.connect();
}

beforeEach(() => {
	open();
	server.onOpen();
});

const say = (frame: ServerFrame) => server.onFrame(frame);
const starts = () => sent.filter((frame): frame is Start => frame.type === "start");
const refuse = (id: string) =>
	say({
		type: "error",
		code: "busy",
		message: "All places are taken.",
		run: null,
		id,
		rev: null,
		field: null,
	});

/** Ask and let the server write a whole reply. */
function turn(text: string, reply: string[], run: string) {
	expect(session.ask(text, settings)).toBe(true);
	const { id } = starts().at(-1)!;
	say(startedFrame(["p"], id, run));
	say(tokensFrame(1, reply, undefined, run));
	say(finishedFrame({ run, usage: { prompt_tokens: 1, reply_tokens: reply.length } }));
}

describe("Session", () => {
	test("nothing can be asked before the engine is ready, and each reason is a sentence", () => {
		expect(session.blocked).toBe("There is no connection to the server now.");
		expect(session.ask("hi", settings)).toBe(false);
		say({ ...welcome, engine: { state: "loading", stage: "Loading weights.", progress: 0.4 }, model: null });
		expect(session.blocked).toBe("The engine is still loading.");
		say(engineReady);
		expect(session.blocked).toBeNull();
		expect(session.server.model).toEqual(model);
		expect(starts()).toEqual([]);
	});

	test("the whole conversation travels, system prompt first, special tokens left out", () => {
		say(welcome);
		turn("one", ["A", "B"], "r1");
		session.ask("two", { ...settings, system: "Be brief." });
		expect(starts()[1]!.messages).toEqual([
			{ role: "system", content: "Be brief." },
			{ role: "user", content: "one" },
			{ role: "assistant", content: "AB" },
			{ role: "user", content: "two" },
		]);
	});

	test("a reply whose rows came in one frame is over like any other", () => {
		say(welcome);
		session.ask("one", settings);
		say(startedFrame(["p"], starts()[0]!.id, "r1"));
		say(rowsFrame(0, 2));
		const version = session.changed.version;
		say(finishedFrame());
		expect(session.changed.version).toBeGreaterThan(version);
		say(tokensFrame(1, ["late"]));
		expect(session.turns[0]!.run.tokens.ids).toEqual([]);
	});

	test("a refused start gives the words back and leaves the conversation as it was", () => {
		say(welcome);
		turn("one", ["A"], "r1");
		const before = session.turns;
		const shown = session.shown;
		session.ask("two", settings);
		refuse(starts()[1]!.id);
		expect(session.turns).toBe(before);
		expect(session.shown).toBe(shown);
		expect(session.takeReturned()).toBe("two");
		expect(session.takeReturned()).toBeNull();
		expect(session.notice).toEqual({ place: "composer", message: "All places are taken." });
		expect(session.blocked).toBeNull();
	});

	test("regenerate asks the same again; when refused the old reply is still there", () => {
		say(welcome);
		turn("one", ["A"], "r1");
		session.regenerate(settings);
		expect(starts()[1]!.messages).toEqual([{ role: "user", content: "one" }]);
		expect(session.turns.length).toBe(1);
		refuse(starts()[1]!.id);
		expect(session.turns[0]!.run.replyText()).toBe("A");
		expect(session.returned).toBeNull();
	});

	test("a connection that breaks before the server took the start gives the words back", () => {
		say(welcome);
		session.ask("one", settings);
		server.onClose(1006, "");
		expect(session.turns).toEqual([]);
		expect(session.returned).toBe("one");
	});

	describe("a connection that breaks in a reply", () => {
		const breakOff = () => {
			say(welcome);
			session.ask("one", settings);
			say(startedFrame(["p"]));
			say({ ...tokensFrame(1, ["A"]), seq: 3 });
			server.onClose(1006, "");
		};
		const comeBack = (epoch = "e1") => {
			session.connection.retryNow();
			server.onOpen();
			say({ ...welcome, epoch });
		};

		test("leaves it live, and it goes on in its place when the line is back", () => {
			breakOff();
			const { run } = session.turns[0]!;
			expect([run.live, run.away, session.live]).toEqual([true, true, run]);
			expect(session.blocked).toBe("There is no connection to the server now.");
			comeBack();
			expect(sent.filter(({ type }) => type === "resume")).toEqual([
				{ type: "resume", run: "r1", epoch: "e1", after: 3 },
			]);
			say(resumedFrame({ seq: 3 }));
			say(tokensFrame(1, ["A", "B"]));
			say(finishedFrame());
			expect([run.away, run.phase, run.replyText()]).toEqual([false, "done", "AB"]);
			expect(session.moved).toBeNull();
		});

		test("sends sliders and Stop of meanwhile when it is back", () => {
			breakOff();
			session.steering.set("joy", 0.4);
			session.stop();
			expect(session.live?.stopAsked).toBe(true);
			comeBack();
			say(resumedFrame({ rev: 2 }));
			expect(sent.slice(-2)).toEqual([
				{ type: "stop", run: "r1" },
				{ type: "steer", run: "r1", rev: 3, strengths: { joy: 0.4 }, settings: {} },
			]);
		});

		test("ends it there when the server no longer has it, and the conversation goes on", () => {
			breakOff();
			comeBack();
			say({
				type: "error",
				code: "unknown_run",
				message: "No.",
				run: "r1",
				id: null,
				rev: null,
				field: null,
			});
			const { run } = session.turns[0]!;
			expect([run.phase, run.problem?.message, run.replyText()]).toEqual(["lost", UNKNOWN, "A"]);
			expect([session.notice, session.blocked]).toEqual([null, null]);
			session.ask("two", settings);
			expect(starts()[1]!.messages.map(({ content }) => content)).toEqual(["one", "A", "two"]);
		});

		test("writes on afterwards what was to be written on", () => {
			breakOff();
			session.writeOn(settings);
			expect(session.canWriteOn).toBe(false);
			comeBack();
			say(resumedFrame());
			session.writeOn(settings);
			say(finishedFrame({ reason: "cancelled" }));
			expect(starts()[1]!.write_on).toBe(true);
		});
	});

	describe("a reload", () => {
		/** The page as a reload makes it: the same storage, nothing else. */
		function reload() {
			const storage = new Map<string, string>();
			const items = {
				setItem: (key: string, value: string) => storage.set(key, value),
				removeItem: (key: string) => storage.delete(key),
				getItem: (key: string) => storage.get(key) ?? null,
			};
			const { turns, asked } = session.keepable;
			keep(items, turns, asked);
			open();
			const kept = findKept(items);
			if (kept !== null) session.restore(kept);
			server.onOpen();
		}

		test("has the texts at once, and fetches the rest: the live reply, then the others", () => {
			say(welcome);
			turn("one", ["A"], "r1");
			session.steering.set("joy", 0.3);
			session.ask("two", settings);
			say(startedFrame(["p", "q"], starts()[1]!.id, "r2"));
			say(tokensFrame(2, ["B"], undefined, "r2"));
			reload();
			expect(session.turns.map(({ user, run }) => [user, run.replyText(), run.live])).toEqual([
				["one", "A", false],
				["two", "B", true],
			]);
			expect(session.shown).toBe(session.live);
			say(welcome);
			expect(sent.slice(2)).toMatchObject([
				{ run: "r2", after: 0 },
				{ run: "r1", after: 0 },
			]);
			say(resumedFrame({ run: "r2", rev: 4, strengths: { joy: 0.3 } }));
			expect(session.steering.get("joy")).toBe(0.3);
			say(startedFrame(["p", "q"], "c2", "r2"));
			say(tokensFrame(2, ["B", "C"], undefined, "r2"));
			expect(session.turns[1]!.run.replyText()).toBe("BC");
			session.steering.set("joy", 0.5);
			expect(sent.at(-1)).toMatchObject({ type: "steer", run: "r2", rev: 5 });
			say({
				type: "error",
				code: "unknown_run",
				message: "No.",
				run: "r1",
				id: null,
				rev: null,
				field: null,
			});
			const first = session.turns[0]!.run;
			expect([first.gone, first.phase, first.problem]).toEqual([NO_MAP, "done", null]);
			say(finishedFrame({ run: "r2" }));
			session.ask("three", settings);
			expect(
				starts()
					.at(-1)!
					.messages.map(({ content }) => content),
			).toEqual(["one", "A", "two", "BC", "three"]);
			expect(new Set(session.turns.map(({ key }) => key)).size).toBe(3);
		});

		test("before the server took a question gives it back", () => {
			say(welcome);
			turn("one", ["A"], "r1");
			session.ask("two", settings);
			reload();
			expect([session.turns.length, session.takeReturned()]).toEqual([1, "two"]);
			expect(session.notice?.place).toBe("composer");
		});

		test("before the server took a new try gives the old reply back", () => {
			say(welcome);
			turn("one", ["A"], "r1");
			session.regenerate(settings);
			reload();
			expect([session.turns[0]!.run.replyText(), session.returned]).toEqual(["A", null]);
		});

		test("that finds another server keeps texts, and says at the live reply that it ended", () => {
			say(welcome);
			session.ask("one", settings);
			say(startedFrame(["p"]));
			say(tokensFrame(1, ["A"]));
			reload();
			say({ ...welcome, epoch: "e2" });
			const { run } = session.turns[0]!;
			expect([run.replyText(), run.phase, run.problem?.message]).toEqual(["A", "lost", OTHER_EPOCH]);
			expect(session.moved).toBeNull();
		});
	});

	describe("watching a reply of another tab", () => {
		const asked = {
			...startedFrame(["u", "Hi", "r", "Yes", "u", "Why?", "r"], "c1", "r7"),
			prompt: {
				ids: [7, 1, 7, 2, 7, 3, 7],
				texts: ["<s>", "Hi", "<s>", "Yes", "<s>", "Why?", "<s>"],
				spans: [
					{ role: "user", start: 0, end: 2 },
					{ role: "assistant", start: 2, end: 4 },
					{ role: "user", start: 4, end: 6 },
				],
			},
		};

		test("shows the conversation, the reply as it is written and the sliders, and can steer and stop it", () => {
			session.watch("r7");
			say(welcome);
			expect(sent.at(-1)).toEqual({ type: "resume", run: "r7", epoch: "e1", after: 0 });
			say(resumedFrame({ run: "r7", rev: 2, strengths: { joy: 0.2 } }));
			say(asked);
			say(tokensFrame(7, ["Because"], undefined, "r7"));
			expect(session.turns.map(({ user, run }) => [user, run.replyText()])).toEqual([
				["Hi", "Yes"],
				["Why?", "Because"],
			]);
			expect(session.shown).toBe(session.live);
			expect(session.steering.get("joy")).toBe(0.2);
			session.steering.set("joy", 0.6);
			expect(sent.at(-1)).toMatchObject({ type: "steer", run: "r7", rev: 3 });
			session.stop();
			expect(sent.at(-1)).toEqual({ type: "stop", run: "r7" });
		});

		test("a new chat here does not end it there", () => {
			say(welcome);
			session.watch("r7");
			say(resumedFrame({ run: "r7" }));
			session.newChat();
			say(asked);
			expect(sent.some(({ type }) => type === "stop")).toBe(false);
		});

		test("one that the server does not have says so", () => {
			say(welcome);
			session.watch("r7");
			say({
				type: "error",
				code: "unknown_run",
				message: "No.",
				run: "r7",
				id: null,
				rev: null,
				field: null,
			});
			expect([session.live, session.turns[0]!.run.problem?.message]).toEqual([null, NEVER_KNOWN]);
		});

		test("is not begun under a reply that is being written here", () => {
			say(welcome);
			session.ask("one", settings);
			say(startedFrame(["p"]));
			session.watch("r7");
			expect([session.turns.length, session.notice?.place]).toEqual([1, "page"]);
			session.watch("r1");
			expect(session.shown).toBe(session.turns[0]!.run);
		});

		test("a slider moved there moves here", () => {
			say(welcome);
			session.ask("one", settings);
			say(startedFrame(["p"]));
			say({ type: "applied", run: "r1", seq: 4, rev: 1, position: 1 });
			expect(sent.at(-1)).toMatchObject({ type: "resume", run: "r1", after: 4 });
			say(resumedFrame({ rev: 1, strengths: { joy: 0.7 } }));
			expect(session.steering.get("joy")).toBe(0.7);
			expect(session.steering.status("joy")).toEqual({ kind: "in-force", position: 1 });
		});
	});

	test("why nothing can be asked while the engine is built again or the server ends", () => {
		say({ ...welcome, engine: { state: "loading", stage: "", progress: 0 } });
		expect(session.blocked).toBe("The engine is still loading.");
		say(engineReady);
		say({ ...engineReady, state: "loading", stage: "The engine failed; a new one is loading." });
		expect(session.blocked).toBe("The engine is being started again. You can write your question already.");
		say({ ...engineReady, state: "draining" });
		expect(session.blocked).toBe("The server is about to end and takes no new questions.");
	});

	test("a run that fails says why at its turn, and the conversation goes on", () => {
		say(welcome);
		session.ask("one", settings);
		say(startedFrame(["p"]));
		const error = { code: "engine_failed" as const, message: "The engine's process ended." };
		say(finishedFrame({ reason: "error", error }));
		expect(session.turns[0]!.run.problem).toEqual(error);
		expect(session.ask("two", settings)).toBe(true);
		expect(starts()[1]!.messages).toEqual([{ role: "user", content: "two" }]);
	});

	test("a place in the queue is told", () => {
		say(welcome);
		session.ask("one", settings);
		say(startedFrame(["p"]));
		const version = session.changed.version;
		say({ type: "queued", run: "r1", seq: 2, position: 2 });
		expect([session.live?.queued, session.changed.version > version]).toEqual([2, true]);
	});

	test("strengths of the sliders start the run and steer it", () => {
		say(welcome);
		session.steering.set("joy", 0.4);
		session.ask("one", settings);
		expect(starts()[0]!.strengths).toEqual({ joy: 0.4 });
		say(startedFrame(["p"]));
		session.steering.set("joy", 0.1);
		expect(sent.at(-1)).toEqual({ type: "steer", run: "r1", rev: 1, strengths: { joy: 0.1 }, settings: {} });
	});

	test("stop names the run; a new chat stops it and hears no more of it", () => {
		say(welcome);
		session.ask("one", settings);
		say(startedFrame(["p"]));
		session.stop();
		expect(sent.at(-1)).toEqual({ type: "stop", run: "r1" });
		session.newChat();
		say(tokensFrame(1, ["late"]));
		expect([session.turns, session.shown, session.live]).toEqual([[], null, null]);
		expect(session.blocked).toBeNull();
	});

	test("a start admitted after its chat was put away is stopped", () => {
		say(welcome);
		session.ask("one", settings);
		session.newChat();
		say(startedFrame(["p"], starts()[0]!.id, "r5"));
		expect(sent.at(-1)).toEqual({ type: "stop", run: "r5" });
	});

	test("an error of a run stands at the run, one of steering at the sliders, others on the page", () => {
		say(welcome);
		session.ask("one", settings);
		say(startedFrame(["p"]));
		const error = { type: "error" as const, run: "r1", id: null, rev: null, field: null };
		say({ ...error, code: "steering_failed", message: "It is not in force." });
		expect(session.notice).toEqual({ place: "steering", message: "It is not in force." });
		session.dismiss();
		say({ ...error, code: "rate_limited", message: "Slower." });
		say({ ...error, code: "stale_revision", message: "Revision 1 was had." });
		expect(session.notice).toBeNull();
		expect(sent.at(-1)).toMatchObject({ type: "resume", run: "r1" });
		say({ ...error, code: "engine_failed", message: "The engine failed." });
		expect(session.turns[0]!.run.problem?.message).toBe("The engine failed.");
		say({ ...error, run: null, code: "internal", message: "Odd." });
		expect(session.notice).toEqual({ place: "page", message: "Odd." });
	});

	test("a run that cannot be shown rightly is stopped", () => {
		say(welcome);
		session.ask("one", settings);
		say(startedFrame(["p"]));
		say(rowsFrame(0, 1, { layers: 2 }));
		say(rowsFrame(1, 1, { layers: 3 }));
		expect(sent.at(-1)).toEqual({ type: "stop", run: "r1" });
		expect(session.live).toBeNull();
	});

	test("the metric stays picked over reconnections while the server has it", () => {
		const other = { ...metric, id: "cosine" };
		say({ ...welcome, metrics: [metric, other] });
		expect(session.metric).toBe("norm");
		session.pickMetric("cosine");
		say({ ...welcome, metrics: [metric, other] });
		expect(session.metric).toBe("cosine");
		say(welcome);
		expect(session.metric).toBe("norm");
	});

	test("a start names the metrics of the chosen families, the lens and the entropy", () => {
		const metrics = [
			metric,
			metricInfo({ id: "mlp_norm", family: "parts" }),
			metricInfo({ id: "lens_kl", family: "logit_lens" }),
		];
		say({ ...welcome, metrics });
		session.ask("one", settings);
		expect(starts()[0]).toMatchObject({ metrics: ["norm"], lens: null, entropy: true });
		session.newChat();
		const watch = { ...settings.watch, stride: 2 as const, entropy: false };
		watch.families = { ...watch.families, residual: false, parts: true, logit_lens: true };
		session.ask("two", { ...settings, watch });
		expect(starts()[1]).toMatchObject({
			metrics: ["mlp_norm"],
			lens: { stride: 2, top: 5 },
			entropy: false,
		});
	});

	test("a metric that fails meanwhile is known as such and no longer asked for", () => {
		const other = metricInfo({ id: "cosine" });
		say({ ...welcome, metrics: [metric, other] });
		const [before] = session.server.metrics;
		say({ ...engineReady, metrics: [metricInfo(), { ...other, error: "ValueError: odd" }] });
		expect(session.server.metrics[0]).toBe(before);
		expect(session.server.metrics[1]!.error).toBe("ValueError: odd");
		session.ask("one", settings);
		expect(starts()[0]!.metrics).toEqual(["norm"]);
		say({ ...engineReady, state: "failed", metrics: [] });
		expect(session.server.metrics.length).toBe(2);
	});

	test("a start asks for what tells how steering goes, which may begin at any token", () => {
		const metrics = [
			metric,
			metricInfo({ id: "steering_share", family: "steering" }),
			metricInfo({ id: "projection:joy", family: "projection" }),
			metricInfo({ id: "projection_before:joy", family: "projection" }),
		];
		const watch = { ...settings.watch, entropy: false };
		say({ ...welcome, metrics });
		session.ask("one", { ...settings, watch });
		expect(starts()[0]).toMatchObject({
			metrics: ["norm", "steering_share", "projection:joy", "projection_before:joy"],
			entropy: false,
			write_on: false,
			settings: {},
		});
		session.newChat();
		session.steering.set("joy", 0.2);
		session.ask("two", { ...settings, watch });
		expect(starts()[1]).toMatchObject({
			metrics: ["norm", "steering_share", "projection:joy", "projection_before:joy"],
			entropy: true,
		});
	});

	describe("writing a reply on", () => {
		const finished = (run: string, reason: "stop" | "length" | "cancelled") =>
			say(finishedFrame({ run, reason }));
		const begin = () => {
			say(welcome);
			session.ask("one", settings);
			say(startedFrame(["p"], starts()[0]!.id, "r1"));
			say(tokensFrame(1, ["A"], undefined, "r1"));
		};

		test("stops it, keeps its text and goes on in the same reply", () => {
			begin();
			session.steering.set("joy", 0.2);
			session.steering.set("joy", 0);
			expect(session.canWriteOn).toBe(true);
			session.writeOn({ ...settings, system: "Be brief." });
			expect(sent.at(-1)).toEqual({ type: "stop", run: "r1" });
			expect(session.canWriteOn).toBe(false);
			say(tokensFrame(2, ["B"], undefined, "r1"));
			finished("r1", "cancelled");
			expect(starts()[1]).toMatchObject({
				write_on: true,
				strengths: {},
				messages: [
					{ role: "system", content: "Be brief." },
					{ role: "user", content: "one" },
					{ role: "assistant", content: "AB" },
				],
			});
			const [turn] = session.turns;
			expect([session.turns.length, turn!.key, turn!.before.length]).toEqual([1, "c1", 1]);
			expect(session.shown).toBe(turn!.run);
			say(startedFrame(["p", "AB"], starts()[1]!.id, "r2"));
			say(tokensFrame(2, ["C"], undefined, "r2"));
			finished("r2", "stop");
			expect(session.canWriteOn).toBe(false);
			session.ask("two", settings);
			expect(starts()[2]!.messages.slice(0, 2)).toEqual([
				{ role: "user", content: "one" },
				{ role: "assistant", content: "ABC" },
			]);
			expect(starts()[2]!.write_on).toBe(false);
		});

		test("does nothing with a reply that came to its own end meanwhile, or has no text", () => {
			begin();
			session.writeOn(settings);
			finished("r1", "stop");
			expect(starts().length).toBe(1);
			session.newChat();
			session.ask("two", settings);
			say(startedFrame(["p"], starts()[1]!.id, "r2"));
			expect(session.canWriteOn).toBe(false);
		});

		test("goes for a stopped reply too; refused, the reply is as it was", () => {
			begin();
			session.stop();
			finished("r1", "cancelled");
			session.writeOn(settings);
			expect(starts().length).toBe(2);
			refuse(starts()[1]!.id);
			expect(session.turns[0]!.before).toEqual([]);
			expect(session.turns[0]!.run.replyText()).toBe("A");
			expect([session.returned, session.canWriteOn]).toEqual([null, true]);
		});

		test("regenerate writes all of it anew", () => {
			begin();
			finished("r1", "length");
			session.writeOn(settings);
			say(startedFrame(["p", "A"], starts()[1]!.id, "r2"));
			finished("r2", "stop");
			session.regenerate(settings);
			expect(starts()[2]!.messages).toEqual([{ role: "user", content: "one" }]);
			expect(session.turns[0]!.before).toEqual([]);
		});
	});

	describe("a link with sliders", () => {
		test("is taken when the vectors are known, once; what it does not name goes to 0", () => {
			session.openShared("joy,0.25,op=ablate");
			expect(session.steering.strengths()).toEqual({});
			say({ ...welcome, engine: { state: "loading", stage: "", progress: 0 }, vectors: [] });
			say({ ...engineReady, vectors: [vector, { ...vector, id: "french" }] });
			expect(session.steering.steered()).toEqual({
				strengths: { joy: 0.25 },
				settings: { joy: { operator: "ablate" } },
			});
			expect(session.slidersNote).toBeNull();
			session.steering.set("joy", 0.5);
			session.steering.set("french", 0.5);
			say({ ...engineReady, vectors: [vector, { ...vector, id: "french" }] });
			expect(session.steering.strengths()).toEqual({ joy: 0.5, french: 0.5 });
			session.openShared("joy,0.1");
			expect(session.steering.steered()).toEqual({ strengths: { joy: 0.1 }, settings: {} });
		});

		test("says which vectors are not here, and takes the others", () => {
			say(welcome);
			session.openShared("pirate,0.3;joy,0.1");
			expect(session.steering.strengths()).toEqual({ joy: 0.1 });
			expect(session.slidersNote).toBe(
				"This server has no vector pirate, so that part of the link was left out.",
			);
			session.dismissSlidersNote();
			expect(session.slidersNote).toBeNull();
		});

		test("that cannot be read changes nothing", () => {
			say(welcome);
			session.steering.set("joy", 0.3);
			session.openShared("joy,<script>");
			expect(session.steering.strengths()).toEqual({ joy: 0.3 });
			expect(session.slidersNote).toBe("The sliders in this link cannot be read, so nothing was changed.");
		});
	});

	test("an aside is no part of the conversation and goes with the chat", () => {
		say(welcome);
		turn("one", ["A"], "r1");
		session.aside("/active", "Nothing is steered.");
		expect(session.asides[0]).toMatchObject({ after: 1, said: "/active", answer: "Nothing is steered." });
		session.ask("two", settings);
		expect(starts()[1]!.messages.length).toBe(3);
		session.newChat();
		expect(session.asides).toEqual([]);
	});

	test("guesses of the logit lens go to their run", () => {
		say(welcome);
		session.ask("one", settings);
		say(startedFrame(["p"]));
		say(lensFrame(0, 1, { texts: { 10: "A" } }));
		expect(session.shown!.guesses.at(0, 1)?.[0]).toEqual({ id: 10, text: "A", probability: 0.5 });
	});

	describe("what a person is told when another server answers", () => {
		/** The connection goes, and a server with this welcome answers the next try. */
		function comeBack(next: Partial<Welcome>) {
			server.onClose(1006, "");
			session.connection.retryNow();
			server.onOpen();
			say({ ...welcome, ...next });
		}

		test("nothing at the first connection, nor when the same one answers again", () => {
			say(welcome);
			expect(session.moved).toBeNull();
			comeBack({});
			expect(session.moved).toBeNull();
		});

		test("a restart, and that the conversation was kept", () => {
			say(welcome);
			turn("one", ["A"], "r1");
			comeBack({ epoch: "e2" });
			expect(session.moved).toBe("The server was restarted. Your conversation was kept.");
			session.dismissMoved();
			expect(session.moved).toBeNull();
		});

		test("another server by its name, and that the reply in progress ended", () => {
			say(welcome);
			session.ask("one", settings);
			say(startedFrame(["p"], starts()[0]!.id, "r1"));
			say(tokensFrame(1, ["A"], undefined, "r1"));
			comeBack({ epoch: "e2", name: "replica-b" });
			expect(session.moved).toBe(
				"You are now on another server (replica-b). Your conversation was kept. " +
					"The reply that was being written ended there.",
			);
			expect(session.turns[0]!.run.phase).toBe("lost");
			expect(session.blocked).toBeNull();
		});
	});
});
