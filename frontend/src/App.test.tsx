// @vitest-environment happy-dom
// The page put together, against a server that the test plays: what is shown, and the names by which tests of the
// whole system find it.
import { act } from "react";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
	appliedFrame,
	engineFrame,
	errorFrame,
	finishedFrame,
	metricInfo,
	modelInfo,
	resumedFrame,
	rowsFrame,
	startedFrame,
	tokensFrame,
	vectorInfo,
	welcomeFrame,
} from "./testing";
import { TestPage } from "./testing/page";

const metrics = [metricInfo({ label: "Residual norm" })];
const loading = welcomeFrame({
	engine: { state: "loading", stage: "Loading weights.", progress: 0.4 },
	metrics,
});
const ready = engineFrame({ model: modelInfo(), metrics, vectors: [vectorInfo()] });
const welcome = welcomeFrame({ model: modelInfo(), metrics, vectors: [vectorInfo()] });

let page: TestPage;
beforeEach(() => {
	page = new TestPage();
});
afterEach(() => page.close());

describe("the page", () => {
	test("shows how the engine loads and turns live by itself", async () => {
		await page.open(loading);
		expect(page.find("engine-state")!.dataset.state).toBe("loading");
		expect(page.text("engine-state")).toContain("Loading weights.");
		expect(page.find("connection-state")!.dataset.state).toBe("live");
		await page.say(ready);
		expect(page.find("engine-state")!.dataset.state).toBe("ready");
		expect(page.find("slider-joy")).not.toBeNull();
		expect(page.value("metric-picker")).toBe("norm");
	});

	test("asks, shows the reply token by token, and offers to write it again", async () => {
		await page.open(welcome);
		expect(page.find<HTMLButtonElement>("send")!.disabled).toBe(true);
		await page.ask("Hello?");
		expect(page.value("prompt-input")).toBe("");
		expect(page.text("message-user")).toBe("Hello?");
		await page.say(startedFrame(["p"]), tokensFrame(1, ["Hi", " you"]));
		const reply = page.find("message-assistant")!;
		expect([reply.dataset.run, reply.dataset.status]).toEqual(["r1", "streaming"]);
		expect([...reply.querySelectorAll<HTMLElement>(".token")].map((token) => token.dataset.position)).toEqual(
			["1", "2"],
		);
		expect(page.find("send")).toBeNull();
		await page.click("stop");
		expect(page.sent.at(-1)).toEqual({ type: "stop", run: "r1" });
		const timing = { first_token_ms: 81, total_ms: 200, tokens_per_s: 17.25 };
		await page.say(finishedFrame({ reason: "cancelled", timing }));
		expect(page.find("message-assistant")!.dataset.status).toBe("done");
		expect(page.text("ttft")).toBe("81 ms");
		expect(page.text("tokens-per-second")).toBe("17.3 tokens/s");
		await page.click("regenerate");
		expect(page.starts.length).toBe(2);
	});

	test("a refused start puts the words back into the box, with the reason beside it", async () => {
		await page.open(welcome);
		await page.ask("Hello?");
		const start = page.starts[0]!;
		await page.say(errorFrame({ code: "busy", message: "All places are taken.", id: start.id }));
		expect(page.value("prompt-input")).toBe("Hello?");
		expect(page.text("error-banner")).toContain("All places are taken.");
		expect(page.find("message-user")).toBeNull();
	});

	test("a slider says when its value is in force", async () => {
		await page.open(welcome);
		await page.ask("Hello?");
		await page.say(startedFrame(["p"]), tokensFrame(1, ["Hi"]));
		await page.fill("slider-joy", "0.5");
		expect(page.sent.at(-1)).toEqual({
			type: "steer",
			run: "r1",
			rev: 1,
			strengths: { joy: 0.5 },
			settings: {},
		});
		expect(page.text("slider-status-joy")).toBe("sent");
		await page.say(rowsFrame(0, 1), appliedFrame(1, 1, { seq: 4 }));
		expect(page.text("slider-status-joy")).toBe("in force at token 1");
		await page.click("reset-all");
		expect(page.value("slider-joy")).toBe("0");
	});

	test("the theme is kept", async () => {
		await page.open(welcome);
		const before = document.documentElement.dataset.theme;
		await page.click("theme-toggle");
		expect(document.documentElement.dataset.theme).not.toBe(before);
		expect(localStorage.getItem("steersight.settings.v1")).toContain(document.documentElement.dataset.theme);
	});

	test("settings are validated where they are typed, and used by the next start", async () => {
		await page.open(welcome);
		await page.click("settings");
		await page.fill("setting-temperature", "0");
		await page.fill("setting-top_p", "3");
		expect(page.text("settings-panel")).toContain("It must be at most 1.");
		await page.ask("Hello?");
		expect(page.starts[0]!.sampling).toMatchObject({
			temperature: 0,
			top_p: 0.95,
		});
	});

	test("a lost connection says so", async () => {
		await page.open(welcome);
		await page.breakOff();
		expect(page.find("connection-state")!.dataset.state).toBe("reconnecting");
	});

	describe("a reply whose line breaks", () => {
		async function begin() {
			await page.open(welcome);
			await page.ask("Hello?");
			await page.say(startedFrame(["p"]), tokensFrame(1, ["Hi"]));
		}

		test("says quietly that it goes on, can be stopped, and goes on in its place", async () => {
			await begin();
			await page.breakOff();
			expect(page.text("turn-note")).toContain("The reply goes on being written");
			expect([page.find("ending"), page.find("error-banner"), page.find("watch-tab")]).toEqual([
				null,
				null,
				null,
			]);
			expect(page.find("message-assistant")!.dataset.status).toBe("streaming");
			expect(page.host.querySelector(".composer-hint")!.textContent).toBe(
				"There is no connection to the server now.",
			);
			await page.fill("slider-joy", "0.5");
			expect(page.text("slider-status-joy")).toBe("waits for the connection");
			await page.click("stop");
			expect(page.find<HTMLButtonElement>("stop")!.disabled).toBe(true);
			expect(page.text("turn-note")).toContain("will be stopped");
			await page.comeBack(welcome, resumedFrame());
			expect(page.find("turn-note")).toBeNull();
			await page.say(tokensFrame(2, [" you"]), finishedFrame({ reason: "cancelled" }));
			expect(page.host.querySelectorAll(".token").length).toBe(2);
			expect(page.text("ending")).toBe("Stopped");
		});

		test("says so when it cannot be fetched any more", async () => {
			await begin();
			await page.breakOff();
			await page.comeBack(welcome, errorFrame({ code: "unknown_run", run: "r1" }));
			expect(page.text("error-banner")).toContain("What had arrived is kept.");
			expect(page.text("ending")).toBe("Interrupted");
			expect(page.find("regenerate")).not.toBeNull();
		});

		test("can be watched in another tab", async () => {
			await begin();
			const link = page.find<HTMLAnchorElement>("watch-tab")!;
			// Only with an opener does the new tab begin with this tab's storage, where the token is.
			expect([link.getAttribute("href"), link.rel]).toEqual(["#watch=r1", "opener"]);
		});
	});

	test("a reply of which only the text is left says so where its map would be", async () => {
		const run = {
			text: "Hi",
			run: "r1",
			epoch: "e0",
			model: null,
			status: "done",
			finished: finishedFrame({ usage: { prompt_tokens: 12, reply_tokens: 1, cached_tokens: 0 } }),
			problem: null,
			stopAsked: false,
			marks: null,
		} as const;
		const turns = [{ user: "Hello?", before: "", beforeMarks: null, watched: false, run }];
		await page.show();
		await act(async () => page.session.restore({ turns, asked: null, cut: false }));
		expect(page.text("message-assistant")).toContain("Hi");
		expect(page.find("heatmap-gone")).toBeNull();
		await page.open(welcome);
		expect(page.text("heatmap-gone")).toContain("no longer has the numbers of this reply");
		expect([page.find("turn-note"), page.find("watch-tab"), page.find("error-banner")]).toEqual([
			null,
			null,
			null,
		]);
		expect(page.host.querySelector(".run-stats")!.textContent).toContain("12 prompt, 1 reply");
	});

	test("a queued reply says how many are before it, and can be stopped", async () => {
		await page.open(welcome);
		await page.ask("Hello?");
		expect(page.text("waiting")).toBe("Waiting for the first token");
		await page.say(startedFrame(["p"]), { type: "queued", run: "r1", seq: 2, position: 3 });
		expect(page.text("waiting")).toBe("Waiting for a place: 2 before you");
		expect(page.find<HTMLButtonElement>("stop")!.disabled).toBe(false);
		await page.say({ type: "queued", run: "r1", seq: 3, position: 0 }, tokensFrame(1, ["Hi"]));
		expect(page.find("waiting")).toBeNull();
	});

	test("a reply that failed says why at its turn", async () => {
		await page.open(welcome);
		await page.ask("Hello?");
		const error = { code: "engine_failed" as const, message: "The engine's process ended." };
		await page.say(startedFrame(["p"]), finishedFrame({ reason: "error", error }));
		expect(page.text("message-assistant")).toContain("The engine's process ended.");
		expect(page.text("ending")).toBe("Failed");
		expect(page.find("send")).not.toBeNull();
	});

	test("a server that ends says so and takes no question", async () => {
		await page.open(welcome);
		await page.say(engineFrame({ state: "draining", stage: "" }));
		expect(page.text("engine-state")).toBe("The server is about to end");
		await page.fill("prompt-input", "Hello?");
		expect(page.find<HTMLButtonElement>("send")!.disabled).toBe(true);
		expect(page.host.querySelector(".composer-hint")!.textContent).toContain("takes no new questions");
	});

	test("a server that asks for a token is told it, and a wrong one is said to be wrong", async () => {
		await page.open();
		const refuse = () => page.breakOff(4401, "The token in hello is missing or wrong.");
		await refuse();
		expect(page.text("connection-state")).toBe("A token is needed");
		expect([page.text("token-wrong"), page.find<HTMLInputElement>("token")!.type]).toEqual(["", "password"]);
		await page.fill("token", "wrong");
		await page.click("token-use");
		expect(sessionStorage.getItem("steersight.token.v1")).toBe("wrong");
		await act(async () => page.server.line.onOpen());
		expect(page.sent.at(-1)).toEqual({ type: "hello", token: "wrong" });
		await refuse();
		expect(page.text("token-wrong")).toBe("The server did not accept this token.");
		expect(sessionStorage.getItem("steersight.token.v1")).toBeNull();
		await page.fill("token", "right");
		await page.click("token-use");
		await act(async () => page.server.line.onOpen());
		await page.say(welcome);
		expect([page.find("token-form"), sessionStorage.getItem("steersight.token.v1")]).toEqual([null, "right"]);
	});
});
