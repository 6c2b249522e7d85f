// What a session keeps and lets go: runs that nothing shows any more, wishes that cannot be met, sliders of vectors
// that went.
import { beforeEach, describe, expect, test } from "vitest";
import type { TransportHandlers } from "../connection/transport";
import type { ClientFrame, Engine, ServerFrame, Start } from "../protocol/types.gen";
import {
	finishedFrame,
	manualBatch,
	metricInfo,
	modelInfo,
	rowsFrame,
	startedFrame,
	tokensFrame,
	vectorInfo,
	welcomeFrame,
} from "../testing";
import { Session } from "./session";
import { defaultSettings } from "./settings";

const model = modelInfo({ max_model_len: 64 });
const joy = vectorInfo();
const calm = vectorInfo({ id: "calm", label: "Calm", own: true });
const metrics = [metricInfo(), metricInfo({ id: "projection:calm", label: "Projection on Calm" })];
const welcome = welcomeFrame({ model, metrics, vectors: [joy, calm] });
const settings = defaultSettings();

let session: Session;
let server: TransportHandlers;
let sent: ClientFrame[];
let takes: boolean;

beforeEach(() => {
	[sent, takes] = [[], true];
	session = new Session(
		(handlers) => {
			server = handlers;
			return { send: (frame) => takes && sent.push(frame) > 0, close: () => {} };
		},
		null,
		manualBatch(),
		{ now: () => 0, random: () => 0, setTimeout: () => 0, clearTimeout: () => {} },
	);
	session.connection.connect();
	server.onOpen();
	say(welcome);
});

function say(...frames: ServerFrame[]) {
	for (const frame of frames) server.onFrame(frame);
}
const starts = () => sent.filter((frame): frame is Start => frame.type === "start");
function engine(changes: Partial<Engine> = {}): Engine {
	const { vectors } = welcome;
	return {
		type: "engine",
		state: "ready",
		stage: "Ready.",
		progress: 1,
		model,
		metrics,
		vectors,
		...changes,
	};
}

/** The newest start is admitted as `run`, and its reply is written up to here. */
function admitted(run: string, reply = ["A"]) {
	say(startedFrame(["p"], starts().at(-1)!.id, run));
	say({ ...rowsFrame(0, 1), run }, tokensFrame(1, reply, undefined, run));
	return session.turns.at(-1)!.run;
}
const ended = (run: string, reason: "stop" | "cancelled" | "length" = "stop") =>
	say(finishedFrame({ run, reason, usage: { prompt_tokens: 1, reply_tokens: 1 } }));

describe("runs that nothing shows any more", () => {
	test("a reply that was regenerated is let go when the new one is admitted, and not before", () => {
		session.ask("one", settings);
		const old = admitted("r1");
		ended("r1");
		session.regenerate(settings);
		say({ ...rowsFrame(1, 1), run: "r1" });
		expect(old.rows.columns).toBe(2);
		admitted("r2");
		say({ ...rowsFrame(2, 1), run: "r1" });
		expect(old.rows.columns).toBe(2);
		// Nor is it asked for after a lost line.
		ended("r2");
		server.onClose(1006, "");
		session.connection.retryNow();
		server.onOpen();
		say(welcome);
		expect(sent.filter((frame) => frame.type === "resume" && frame.run === "r1")).toEqual([]);
	});

	test("of a reply that was written on the text and its marks stay, the numbers go", () => {
		session.ask("one", settings);
		const old = admitted("r1", ["A", "B"]);
		say({ ...rowsFrame(1, 1, { rev: () => 1 }), run: "r1" });
		ended("r1", "length");
		session.writeOn(settings);
		expect(old.rows.values("norm")).toBeDefined();
		admitted("r2");
		expect(old.rows.values("norm")).toBeUndefined();
		expect(old.rows.boundaries()).toEqual([{ rev: 1, position: 1 }]);
		expect(session.turns[0]!.before[0]!.replyText()).toBe("AB");
	});

	test("after New chat no run is left in the sliders", () => {
		session.ask("one", settings);
		admitted("r1");
		ended("r1");
		session.newChat();
		expect(session.steering.run).toBeNull();
	});

	test("a run gets no more positions than the model's texts have", () => {
		session.ask("one", settings);
		const run = admitted("r1");
		say({ ...rowsFrame(64, 1), run: "r1" });
		expect([run.phase, run.rows.columns]).toEqual(["failed", 1]);
	});

	test("a start that was put away and is then refused says nothing in the new chat", () => {
		session.ask("one", settings);
		session.newChat();
		say({
			type: "error",
			code: "busy",
			message: "All places are taken.",
			run: null,
			id: "c1",
			field: null,
			rev: null,
		});
		expect(session.notice).toBeNull();
	});
});

describe("what cannot be done now", () => {
	test("a stopped reply is written on only where the engine takes it", () => {
		session.ask("one", settings);
		admitted("r1");
		ended("r1", "cancelled");
		expect(session.canWriteOn).toBe(true);
		for (const state of ["loading", "failed", "draining"] as const) {
			say(engine({ state, vectors: [] }));
			expect(session.canWriteOn).toBe(false);
		}
		say(engine());
		expect(session.canWriteOn).toBe(true);
	});

	test("the engine goes while the reply is being stopped: it is said that it was not written on", () => {
		session.ask("one", settings);
		admitted("r1");
		session.writeOn(settings);
		say(engine({ state: "loading", vectors: [] }));
		ended("r1", "cancelled");
		expect(starts().length).toBe(1);
		expect(session.notice).toEqual({
			place: "composer",
			message:
				"The reply was not written on. The engine is being started again. You can write your question already.",
		});
	});

	test("a line that takes nothing: regenerating says so, and the old reply stays", () => {
		session.ask("one", settings);
		const run = admitted("r1");
		ended("r1");
		takes = false;
		session.regenerate(settings);
		expect(session.turns[0]!.run).toBe(run);
		expect(session.notice?.message).toBe(
			"The reply was not written again. There is no connection to the server now.",
		);
	});
});

describe("a conversation that the server would not take", () => {
	test.each([
		[
			{ max_frame_bytes: 2048 },
			"This conversation has 4 KiB, and the server takes 2 KiB. Shorten it or begin a new one.",
		],
		[{ max_messages: 2 }, "This conversation has 3 messages, and the server takes 2. Begin a new one."],
	])("with %j: it is not sent, and the words stay where they were typed", (limits, message) => {
		session.ask("one", settings);
		admitted("r1");
		ended("r1");
		say({ ...welcome, limits: { ...welcome.limits, ...limits } });
		expect(session.ask("x".repeat(3500), settings)).toBe(false);
		expect(starts().length).toBe(1);
		expect([session.notice, session.turns.length]).toEqual([{ place: "composer", message }, 1]);
	});
});

describe("as many vectors as the server takes", () => {
	test("one more is refused with a sentence, and is welcome when another has gone", () => {
		say({ ...welcome, limits: { ...welcome.limits, max_vectors: 1 } });
		const { steering } = session;
		steering.set("joy", 0.2);
		steering.set("calm", 0.2);
		expect(steering.strengths()).toEqual({ joy: 0.2 });
		expect(steering.problem).toBe(
			"This server steers with at most 1 vector at once. Set another slider back to 0 first.",
		);
		steering.set("joy", 0.3);
		expect(steering.problem).toBeNull();
		steering.set("joy", 0);
		steering.act("calm", steering.setting("calm"), 0.2);
		expect([steering.strengths(), steering.problem]).toEqual([{ calm: 0.2 }, null]);
	});

	test("a strength beyond the server's becomes the server's", () => {
		say({ ...welcome, limits: { ...welcome.limits, max_strength: 10 } });
		session.steering.set("joy", -99);
		expect(session.steering.get("joy")).toBe(-10);
	});

	test("a link with more takes as many as fit, and says which do not", () => {
		say({ ...welcome, limits: { ...welcome.limits, max_vectors: 1 } });
		session.openShared("joy,0.1;calm,0.1");
		expect(session.steering.strengths()).toEqual({ joy: 0.1 });
		expect(session.steering.problem).toMatch(/at most 1 vector/);
		session.openShared("calm,0.1");
		expect([session.steering.strengths(), session.steering.problem]).toEqual([{ calm: 0.1 }, null]);
	});
});

describe("a vector that is deleted", () => {
	const without = engine({ vectors: [joy], metrics: metrics.slice(0, 1) });

	test("while it acts: its slider goes, and that is said", () => {
		session.steering.set("calm", 0.2);
		say(without);
		expect(session.steering.strengths()).toEqual({});
		expect(session.slidersNote).toBe("Calm is no longer on this server, so its slider is gone.");
		session.dismissSlidersNote();
		expect(session.slidersNote).toBeNull();
	});

	test("while the map shows its projection: the map shows another metric, and that is said", () => {
		session.pickMetric("projection:calm");
		say(without);
		expect(session.metric).toBe("norm");
		expect(session.slidersNote).toBe(
			"Calm is no longer on this server, so its slider is gone. The map shows Norm in place of its projection.",
		);
	});

	test("while nobody looks: nothing need be said", () => {
		say(without);
		expect(session.slidersNote).toBeNull();
	});
});
