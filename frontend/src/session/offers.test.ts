// What a person chose among what the server offers, while it has it and when it goes.
import { beforeEach, describe, expect, test } from "vitest";
import { metricInfo, vectorInfo } from "../testing";
import { joy, metric, ready, settings, welcome } from "../testing/lab";
import { played, type TestServer } from "../testing/server";
import type { Session } from "./session";

let server: TestServer;
let session: Session;
beforeEach(() => {
	({ server, session } = played());
});

test("the metric stays picked over reconnections while the server has it", () => {
	const other = { ...metric, id: "cosine" };
	server.say({ ...welcome, metrics: [metric, other] });
	expect(session.metric).toBe("norm");
	session.pickMetric("cosine");
	server.say({ ...welcome, metrics: [metric, other] });
	expect(session.metric).toBe("cosine");
	server.say(welcome);
	expect(session.metric).toBe("norm");
});

test("a metric that fails meanwhile is known as such and no longer asked for", () => {
	const other = metricInfo({ id: "cosine" });
	server.say({ ...welcome, metrics: [metric, other] });
	const [before] = session.server.metrics;
	server.say({ ...ready, metrics: [metricInfo(), { ...other, error: "ValueError: odd" }] });
	expect(session.server.metrics[0]).toBe(before);
	expect(session.server.metrics[1]!.error).toBe("ValueError: odd");
	session.ask("one", settings);
	expect(server.starts[0]!.metrics).toEqual(["norm"]);
	server.say({ ...ready, state: "failed", metrics: [] });
	expect(session.server.metrics.length).toBe(2);
});

describe("a link with sliders", () => {
	test("is taken when the vectors are known, once; what it does not name goes to 0", () => {
		session.openShared("joy,0.25,op=ablate");
		expect(session.steering.strengths()).toEqual({});
		server.say({ ...welcome, engine: { state: "loading", stage: "", progress: 0 }, vectors: [] });
		server.say({ ...ready, vectors: [joy, { ...joy, id: "french" }] });
		expect(session.steering.steered()).toEqual({
			strengths: { joy: 0.25 },
			settings: { joy: { operator: "ablate" } },
		});
		expect(session.slidersNote).toBeNull();
		session.steering.set("joy", 0.5);
		session.steering.set("french", 0.5);
		server.say({ ...ready, vectors: [joy, { ...joy, id: "french" }] });
		expect(session.steering.strengths()).toEqual({ joy: 0.5, french: 0.5 });
		session.openShared("joy,0.1");
		expect(session.steering.steered()).toEqual({ strengths: { joy: 0.1 }, settings: {} });
	});

	test("says which vectors are not here, and takes the others", () => {
		server.say(welcome);
		session.openShared("pirate,0.3;joy,0.1");
		expect(session.steering.strengths()).toEqual({ joy: 0.1 });
		expect(session.slidersNote).toBe(
			"This server has no vector pirate, so that part of the link was left out.",
		);
		session.dismissSlidersNote();
		expect(session.slidersNote).toBeNull();
	});

	test("that cannot be read changes nothing", () => {
		server.say(welcome);
		session.steering.set("joy", 0.3);
		session.openShared("joy,<script>");
		expect(session.steering.strengths()).toEqual({ joy: 0.3 });
		expect(session.slidersNote).toBe("The sliders in this link cannot be read, so nothing was changed.");
	});
});

describe("with two vectors", () => {
	const calm = vectorInfo({ id: "calm", label: "Calm", own: true });
	const metrics = [metric, metricInfo({ id: "projection:calm", label: "Projection on Calm" })];
	const both = { ...welcome, metrics, vectors: [joy, calm] };
	beforeEach(() => server.say(both));

	test("one more is refused with a sentence, and is welcome when another has gone", () => {
		server.say({ ...both, limits: { ...both.limits, max_vectors: 1 } });
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
		server.say({ ...both, limits: { ...both.limits, max_strength: 10 } });
		session.steering.set("joy", -99);
		expect(session.steering.get("joy")).toBe(-10);
	});

	test("a link with more takes as many as fit, and says which do not", () => {
		server.say({ ...both, limits: { ...both.limits, max_vectors: 1 } });
		session.openShared("joy,0.1;calm,0.1");
		expect(session.steering.strengths()).toEqual({ joy: 0.1 });
		expect(session.steering.problem).toMatch(/at most 1 vector/);
		session.openShared("calm,0.1");
		expect([session.steering.strengths(), session.steering.problem]).toEqual([{ calm: 0.1 }, null]);
	});

	test("deleted while it acts: its slider goes, and that is said", () => {
		session.steering.set("calm", 0.2);
		server.say(ready);
		expect(session.steering.strengths()).toEqual({});
		expect(session.slidersNote).toBe("Calm is no longer on this server, so its slider is gone.");
		session.dismissSlidersNote();
		expect(session.slidersNote).toBeNull();
	});

	test("deleted while the map shows its projection: the map shows another metric, and that is said", () => {
		session.pickMetric("projection:calm");
		server.say(ready);
		expect(session.metric).toBe("norm");
		expect(session.slidersNote).toBe(
			"Calm is no longer on this server, so its slider is gone. The map shows Norm in place of its projection.",
		);
	});

	test("deleted while nobody looks: nothing need be said", () => {
		server.say(ready);
		expect(session.slidersNote).toBeNull();
	});
});
