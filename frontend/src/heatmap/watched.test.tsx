// @vitest-environment happy-dom
// What the map shows and what the next reply is watched with, in the whole page.
import { act } from "react";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
	engineFrame,
	errorFrame,
	finishedFrame,
	gapFrame,
	metricInfo,
	modelInfo,
	rowsFrame,
	startedFrame,
	vectorInfo,
	watchedFrame,
	welcomeFrame,
} from "../testing";
import { TestPage } from "../testing/page";

const welcome = welcomeFrame({ model: modelInfo(), metrics: [metricInfo()], vectors: [vectorInfo()] });

let page: TestPage;
beforeEach(() => {
	page = new TestPage();
});
afterEach(() => page.close());

describe("what is watched", () => {
	const parts = metricInfo({
		id: "mlp_norm",
		label: "MLP's part",
		family: "parts",
		cost: "keeps attention's output",
	});
	const lens = metricInfo({
		id: "lens_kl",
		label: "Logit lens: KL",
		family: "logit_lens",
		cost: "a product",
	});
	const broken = metricInfo({ id: "cosine", label: "Cosine", error: "ValueError: odd" });
	const metrics = [metricInfo({ label: "Residual norm" }), broken, parts, lens];

	/** The engine says which metrics it has. */
	const know = (known = metrics) => page.say(engineFrame({ metrics: known }));

	test("is chosen by family, says what it costs, is kept and sent", async () => {
		await page.open(welcome);
		await know();
		await page.click("watch");
		expect(page.find("watch")!.getAttribute("aria-expanded")).toBe("true");
		const panel = page.find("watch-panel")!;
		const names = [...panel.querySelectorAll("label")].map((label) => label.textContent);
		expect(names).toEqual(["Residual stream", "Parts: attention and MLP", "Logit lens", "Entropy"]);
		expect(panel.textContent).toContain("keeps attention's output");
		expect(page.find<HTMLInputElement>("watch-residual")!.checked).toBe(true);
		expect(page.find<HTMLInputElement>("watch-entropy")!.checked).toBe(true);
		expect(page.find<HTMLSelectElement>("watch-stride")!.disabled).toBe(true);
		await page.click("watch-parts");
		await page.click("watch-logit_lens");
		await page.fill("watch-stride", "2");
		await page.click("watch-entropy");
		await page.ask();
		expect(page.starts[0]).toMatchObject({
			metrics: ["norm", "mlp_norm"],
			lens: { stride: 2, top: 5 },
			entropy: false,
		});
		expect(JSON.parse(localStorage.getItem("steersight.settings.v1")!).watch).toMatchObject({
			families: { parts: true, logit_lens: true },
			stride: 2,
			entropy: false,
		});
	});

	test("Escape puts Watch away and does not stop the reply", async () => {
		await page.open(welcome);
		await know();
		await page.ask();
		await page.say(startedFrame(["p"]));
		await page.click("watch");
		await act(async () => {
			const press = new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true });
			page.find("watch-residual")!.dispatchEvent(press);
		});
		expect(page.find("watch-panel")).toBeNull();
		expect(document.activeElement).toBe(page.find("watch"));
		expect(page.sent.some((frame) => frame.type === "stop")).toBe(false);
	});

	test("the picker groups metrics; one that failed is off and says why when it is shown", async () => {
		await page.open(welcome);
		await know(metrics.map((metric) => ({ ...metric, error: null })));
		const groups = () =>
			[...page.find("metric-picker")!.querySelectorAll("optgroup")].map(
				(group) =>
					`${group.label}: ${[...group.querySelectorAll("option")].map((one) => one.textContent).join(", ")}`,
			);
		expect(groups()).toEqual([
			"Residual stream: Residual norm, Cosine",
			"Parts: MLP's part",
			"Logit lens: Logit lens: KL",
		]);
		await page.fill("metric-picker", "cosine");
		expect(page.find("metric-error")).toBeNull();
		await know();
		expect(groups()[0]).toBe("Residual stream: Residual norm, Cosine (failed)");
		const option = page.find("metric-picker")!.querySelector<HTMLOptionElement>("[value=cosine]")!;
		expect(option.disabled).toBe(true);
		expect(page.text("metric-error")).toBe(
			"Cosine failed on the server and is switched off: ValueError: odd",
		);
		await page.fill("metric-picker", "norm");
		expect(page.find("metric-error")).toBeNull();
	});

	test("tokens that were not computed say so, and are computed for the asking", async () => {
		await page.open(welcome);
		await page.ask();
		const [first] = page.starts;
		await page.say(startedFrame(["p", "q"], first!.id), gapFrame(0, 1, { cached: true }));
		expect(page.text("from-cache")).toBe(
			"1 token was not computed for this reply: it had been read before.Compute them",
		);
		await page.click("compute-cached");
		expect(page.find<HTMLButtonElement>("compute-cached")!.disabled).toBe(true);
		await page.say(errorFrame({ code: "busy", message: "All places are taken.", id: page.starts[1]!.id }));
		expect(page.text("from-cache")).toContain("All places are taken.");
		await page.click("compute-cached");
		await page.say(startedFrame(["p", "q"], page.starts[2]!.id, "r2"), { ...rowsFrame(0, 2), run: "r2" });
		expect(page.find("from-cache")).toBeNull();
	});

	test("what a reply computes by its own code can be picked when it comes, is drawn, and is gone with the reply", async () => {
		await page.open(welcome);
		await know();
		await page.ask();
		await page.say(startedFrame(["p", "q", "r"], page.starts[0]!.id), rowsFrame(0, 2));
		const options = () =>
			[...page.find("metric-picker")!.querySelectorAll("optgroup[label='Live values'] option")].map(
				(option) => option.textContent,
			);
		expect(options()).toEqual([]);
		const mine = ["norm", "live:length"];
		const value = (position: number, metric: number) => (metric === 1 ? 10 * position : 0);
		await page.say(watchedFrame(2, ["norm"], ["length"]), rowsFrame(2, 1, { metrics: mine, value }));
		expect(options()).toEqual(["length"]);
		await page.fill("metric-picker", "live:length");
		expect(page.find("heatmap-unwatched")).toBeNull();
		const pointed = { run: page.session.shown!.id, by: "keys" as const, layer: 1 };
		await act(async () => page.session.cursor.set({ ...pointed, position: 2 }));
		expect(page.text("heatmap-sentence")).toContain("layer 1: length 20,");
		await act(async () => page.session.cursor.set({ ...pointed, position: 1 }));
		expect(page.text("heatmap-sentence")).toContain("layer 1: length not computed here,");
		// What the server lists may change: the choice stays.
		await know();
		expect(page.value("metric-picker")).toBe("live:length");
		await page.say(finishedFrame());
		// The next reply computes nothing of the kind: it is not asked for, and its map shows what there is.
		await page.ask("Again?");
		expect(page.starts[1]!.metrics).toEqual(["norm"]);
		await page.say(
			{ ...startedFrame(["p"], page.starts[1]!.id), run: "r2" },
			{ ...rowsFrame(0, 1), run: "r2" },
		);
		expect([page.value("metric-picker"), options()]).toEqual(["norm", []]);
		expect(page.find("heatmap-unwatched")).toBeNull();
		const before = page.session.turns[0]!.run;
		await act(async () => page.session.show(before));
		expect([page.value("metric-picker"), options()]).toEqual(["live:length", ["length"]]);
	});

	test("a metric that the reply lacks can be had with the next one", async () => {
		await page.open(welcome);
		await know();
		await page.fill("metric-picker", "mlp_norm");
		expect(page.find("heatmap-unwatched")).toBeNull();
		await page.ask();
		expect(page.find("heatmap-unwatched")).toBeNull();
		await page.say(startedFrame(["p"], page.starts[0]!.id), rowsFrame(0, 1));
		expect(page.text("heatmap-unwatched")).toContain(
			"This reply was not watched with MLP's part. It will be with the next one: switch on Parts under Watch.",
		);
		await page.click("watch-next");
		expect(page.find("watch-next")).toBeNull();
		expect(page.text("heatmap-unwatched")).toBe(
			"This reply was not watched with MLP's part. The next one will be.",
		);
		await page.fill("metric-picker", "norm");
		expect(page.find("heatmap-unwatched")).toBeNull();
	});
});
