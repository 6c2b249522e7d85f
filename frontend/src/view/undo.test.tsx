// @vitest-environment happy-dom
// Steps back over sliders, scale and metric, as a person takes them on the page.
import { act } from "react";
import { afterEach, beforeEach, expect, test } from "vitest";
import { metricInfo, modelInfo, vectorInfo, welcomeFrame } from "../testing";
import { TestPage } from "../testing/page";

const joy = vectorInfo();
const norm = metricInfo();
const cosine = metricInfo({ id: "cosine", label: "Cosine" });
let page: TestPage;

beforeEach(async () => {
	page = new TestPage();
	await page.open(welcomeFrame({ model: modelInfo(), metrics: [norm, cosine], vectors: [joy] }));
});
afterEach(() => page.close());

test("a slider goes back to where it stood, and forth again", async () => {
	await page.fill("slider-joy", "0.5");
	expect(page.find("undo")!.title).toBe("Undo: Joy 0.50 (Ctrl+Z)");
	await page.click("undo");
	expect([page.value("slider-joy"), page.session.steering.strengths()]).toEqual(["0", {}]);
	await page.click("redo");
	expect(page.session.steering.strengths()).toEqual({ joy: 0.5 });
	await page.click("reset-all");
	await page.click("undo");
	expect(page.session.steering.strengths()).toEqual({ joy: 0.5 });
});

test("a slider whose vector the server no longer has stays gone", async () => {
	await page.fill("slider-joy", "0.5");
	await page.say(welcomeFrame({ model: modelInfo(), metrics: [norm], vectors: [] }));
	await page.click("undo");
	await page.click("redo");
	expect(page.session.steering.strengths()).toEqual({});
});

test("a step back to another reply is told to all of the page", async () => {
	for (const [question, run] of [
		["one", "r1"],
		["two", "r2"],
	] as const) {
		await act(async () => page.server.turn(question, ["A"], run));
	}
	const shown = () =>
		[...page.host.querySelectorAll(".shown")].map((one) => (one as HTMLElement).dataset.run);
	await act(async () => page.session.show(page.session.turns[0]!.run));
	expect(shown()).toEqual(["r1"]);
	await page.click("undo");
	expect([shown(), page.session.shown!.name]).toEqual([["r2"], "r2"]);
});

test("the metric on the map and the ends of a scale go back, each by itself", () => {
	const { session } = page;
	const seen = () => [session.metric, session.view.now.ranges.norm ?? null, session.view.now.zoom];
	return act(async () => {
		const first = seen();
		session.pickMetric("cosine");
		session.looking.setRange("norm", { lo: 0, hi: 1 });
		session.looking.setZoom(0);
		session.looking.setRange("norm", null);
		expect(seen()).toEqual(["cosine", null, 0]);
		expect(session.history.undoable).toBe("scale of colours");
		session.history.undo();
		expect(seen()).toEqual(["cosine", { lo: 0, hi: 1 }, 0]);
		while (session.history.undo());
		expect(seen()).toEqual(first);
		while (session.history.redo());
		expect(seen()).toEqual(["cosine", null, 0]);
	});
});
