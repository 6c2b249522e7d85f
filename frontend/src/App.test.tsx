// @vitest-environment happy-dom
// The page put together, against a transport that the test holds: what is shown, and the names by which
// tests of the whole system find it.
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { App } from "./App";
import type { TransportHandlers } from "./connection/transport";
import type { ClientFrame, ServerFrame } from "./protocol/types.gen";
import { Session } from "./session/session";
import { FrameBatch } from "./store/signal";
import {
	finishedFrame,
	metricInfo,
	resumedFrame,
	rowsFrame,
	startedFrame,
	tokensFrame,
	welcomeFrame,
} from "./testing";

const welcome = welcomeFrame({
	engine: { state: "loading", stage: "Loading weights.", progress: 0.4 },
	metrics: [metricInfo({ label: "Residual norm" })],
});

let root: Root;
let host: HTMLElement;
let server: TransportHandlers;
let sent: ClientFrame[];
let session: Session;

beforeEach(async () => {
	vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
	vi.stubGlobal(
		"ResizeObserver",
		class {
			observe() {}
			disconnect() {}
		},
	);
	sent = [];
	// Frames come at once: `act` waits for React, not for the screen.
	const batch = new FrameBatch((callback) => callback());
	session = new Session(
		(handlers) => {
			server = handlers;
			return { send: (frame) => sent.push(frame) > 0, close: () => {} };
		},
		null,
		batch,
		{ now: () => 0, random: () => 0, setTimeout: () => 0, clearTimeout: () => {} },
	);
	session.connection.connect();
	host = document.createElement("div");
	document.body.append(host);
	root = createRoot(host);
	await act(async () => root.render(<App session={session} />));
});

afterEach(async () => {
	await act(async () => root.unmount());
	host.remove();
	localStorage.clear();
	sessionStorage.clear();
	vi.unstubAllGlobals();
});

const find = <T extends HTMLElement = HTMLElement>(id: string) =>
	host.querySelector<T>(`[data-testid="${id}"]`);
const say = (...frames: ServerFrame[]) =>
	act(async () => {
		for (const frame of frames) server.onFrame(frame);
	});
const click = (id: string) => act(async () => find(id)!.click());

async function type(id: string, value: string) {
	const field = find<HTMLInputElement>(id)!;
	await act(async () => {
		const prototype = Object.getPrototypeOf(field);
		Object.getOwnPropertyDescriptor(prototype, "value")!.set!.call(field, value);
		field.dispatchEvent(new Event("input", { bubbles: true }));
	});
}

async function ready() {
	await act(async () => server.onOpen());
	const vector = {
		id: "joy",
		label: "Joy",
		description: "",
		layers: [3],
		range: [-1, 1],
		suggested: 0.5,
		kind: "direction" as const,
		operator: "add" as const,
		operators: ["add" as const],
		own: false,
	};
	const model = {
		id: "tiny",
		layers: 2,
		hidden_size: 4,
		vocab_size: 9,
		dtype: "f",
		max_model_len: 64,
		special_ids: [],
		chat: "template" as const,
	};
	await say(welcome, {
		type: "engine",
		state: "ready",
		stage: "Ready.",
		progress: 1,
		model,
		metrics: welcome.metrics,
		vectors: [vector as never],
	});
}

describe("the page", () => {
	test("shows how the engine loads and turns live by itself", async () => {
		await act(async () => server.onOpen());
		await say(welcome);
		expect(find("engine-state")!.dataset.state).toBe("loading");
		expect(find("engine-state")!.textContent).toContain("Loading weights.");
		expect(find("connection-state")!.dataset.state).toBe("live");
		await ready();
		expect(find("engine-state")!.dataset.state).toBe("ready");
		expect(find("slider-joy")).not.toBeNull();
		expect(find<HTMLSelectElement>("metric-picker")!.value).toBe("norm");
	});

	test("asks, shows the reply token by token, and offers to write it again", async () => {
		await ready();
		expect(find<HTMLButtonElement>("send")!.disabled).toBe(true);
		await type("prompt-input", "Hello?");
		await click("send");
		expect(find<HTMLTextAreaElement>("prompt-input")!.value).toBe("");
		expect(find("message-user")!.textContent).toBe("Hello?");
		await say(startedFrame(["p"]), tokensFrame(1, ["Hi", " you"]));
		const reply = find("message-assistant")!;
		expect([reply.dataset.run, reply.dataset.status]).toEqual(["r1", "streaming"]);
		expect([...reply.querySelectorAll<HTMLElement>(".token")].map((token) => token.dataset.position)).toEqual(
			["1", "2"],
		);
		expect(find("send")).toBeNull();
		await click("stop");
		expect(sent.at(-1)).toEqual({ type: "stop", run: "r1" });
		const timing = { first_token_ms: 81, total_ms: 200, tokens_per_s: 17.25 };
		await say(finishedFrame({ reason: "cancelled", timing }));
		expect(find("message-assistant")!.dataset.status).toBe("done");
		expect(find("ttft")!.textContent).toBe("81 ms");
		expect(find("tokens-per-second")!.textContent).toBe("17.3 tokens/s");
		await click("regenerate");
		expect(sent.filter((frame) => frame.type === "start").length).toBe(2);
	});

	test("a refused start puts the words back into the box, with the reason beside it", async () => {
		await ready();
		await type("prompt-input", "Hello?");
		await click("send");
		const start = sent.find((frame) => frame.type === "start")!;
		await say({
			type: "error",
			code: "busy",
			message: "All places are taken.",
			run: null,
			id: start.id,
			rev: null,
			field: null,
		});
		expect(find<HTMLTextAreaElement>("prompt-input")!.value).toBe("Hello?");
		expect(find("error-banner")!.textContent).toContain("All places are taken.");
		expect(find("message-user")).toBeNull();
	});

	test("a slider says when its value is in force", async () => {
		await ready();
		await type("prompt-input", "Hello?");
		await click("send");
		await say(startedFrame(["p"]), tokensFrame(1, ["Hi"]));
		await type("slider-joy", "0.5");
		expect(sent.at(-1)).toEqual({ type: "steer", run: "r1", rev: 1, strengths: { joy: 0.5 }, settings: {} });
		expect(find("slider-status-joy")!.textContent).toBe("sent");
		await say(rowsFrame(0, 1), { type: "applied", run: "r1", seq: 4, rev: 1, position: 1 });
		expect(find("slider-status-joy")!.textContent).toBe("in force at token 1");
		await click("reset-all");
		expect(find<HTMLInputElement>("slider-joy")!.value).toBe("0");
	});

	test("the theme is kept", async () => {
		const before = document.documentElement.dataset.theme;
		await click("theme-toggle");
		expect(document.documentElement.dataset.theme).not.toBe(before);
		expect(localStorage.getItem("steersight.settings.v1")).toContain(document.documentElement.dataset.theme);
	});

	test("settings are validated where they are typed, and used by the next start", async () => {
		await ready();
		await click("settings");
		await type("setting-temperature", "0");
		await type("setting-top_p", "3");
		expect(find("settings-panel")!.textContent).toContain("It must be at most 1.");
		await type("prompt-input", "Hello?");
		await click("send");
		expect(sent.find((frame) => frame.type === "start")!.sampling).toMatchObject({
			temperature: 0,
			top_p: 0.95,
		});
	});

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
		const starts = () => sent.filter((frame) => frame.type === "start");

		async function ask() {
			await type("prompt-input", "Hello?");
			await click("send");
		}
		async function pick(id: string, value: string) {
			const field = find<HTMLSelectElement>(id)!;
			await act(async () => {
				field.value = value;
				field.dispatchEvent(new Event("change", { bubbles: true }));
			});
		}
		/** The engine says which metrics it has. */
		const know = (known = metrics) =>
			say({
				type: "engine",
				state: "ready",
				stage: "",
				progress: 1,
				model: null,
				metrics: known,
				vectors: [],
			});

		test("is chosen by family, says what it costs, is kept and sent", async () => {
			await ready();
			await know();
			await click("watch");
			expect(find("watch")!.getAttribute("aria-expanded")).toBe("true");
			const panel = find("watch-panel")!;
			const names = [...panel.querySelectorAll("label")].map((label) => label.textContent);
			expect(names).toEqual(["Residual stream", "Parts: attention and MLP", "Logit lens", "Entropy"]);
			expect(panel.textContent).toContain("keeps attention's output");
			expect(find<HTMLInputElement>("watch-residual")!.checked).toBe(true);
			expect(find<HTMLInputElement>("watch-entropy")!.checked).toBe(true);
			expect(find<HTMLSelectElement>("watch-stride")!.disabled).toBe(true);
			await click("watch-parts");
			await click("watch-logit_lens");
			await pick("watch-stride", "2");
			await click("watch-entropy");
			await ask();
			expect(starts()[0]).toMatchObject({
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
			await ready();
			await know();
			await ask();
			await say(startedFrame(["p"]));
			await click("watch");
			await act(async () => {
				const press = new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true });
				find("watch-residual")!.dispatchEvent(press);
			});
			expect(find("watch-panel")).toBeNull();
			expect(document.activeElement).toBe(find("watch"));
			expect(sent.some((frame) => frame.type === "stop")).toBe(false);
		});

		test("the picker groups metrics; one that failed is off and says why when it is shown", async () => {
			await ready();
			await know(metrics.map((metric) => ({ ...metric, error: null })));
			const groups = () =>
				[...find("metric-picker")!.querySelectorAll("optgroup")].map(
					(group) =>
						`${group.label}: ${[...group.querySelectorAll("option")].map((one) => one.textContent).join(", ")}`,
				);
			expect(groups()).toEqual([
				"Residual stream: Residual norm, Cosine",
				"Parts: MLP's part",
				"Logit lens: Logit lens: KL",
			]);
			await pick("metric-picker", "cosine");
			expect(find("metric-error")).toBeNull();
			await know();
			expect(groups()[0]).toBe("Residual stream: Residual norm, Cosine (failed)");
			const option = find("metric-picker")!.querySelector<HTMLOptionElement>("[value=cosine]")!;
			expect(option.disabled).toBe(true);
			expect(find("metric-error")!.textContent).toBe(
				"Cosine failed on the server and is switched off: ValueError: odd",
			);
			await pick("metric-picker", "norm");
			expect(find("metric-error")).toBeNull();
		});

		test("a metric that the reply lacks can be had with the next one", async () => {
			await ready();
			await know();
			await pick("metric-picker", "mlp_norm");
			expect(find("heatmap-unwatched")).toBeNull();
			await ask();
			expect(find("heatmap-unwatched")).toBeNull();
			await say(startedFrame(["p"], starts()[0]!.id), rowsFrame(0, 1));
			expect(find("heatmap-unwatched")!.textContent).toContain(
				"This reply was not watched with MLP's part. It will be with the next one: switch on Parts under Watch.",
			);
			await click("watch-next");
			expect(find("watch-next")).toBeNull();
			expect(find("heatmap-unwatched")!.textContent).toBe(
				"This reply was not watched with MLP's part. The next one will be.",
			);
			await pick("metric-picker", "norm");
			expect(find("heatmap-unwatched")).toBeNull();
		});
	});

	test("a lost connection says so", async () => {
		await ready();
		await act(async () => server.onClose(1006, ""));
		expect(find("connection-state")!.dataset.state).toBe("reconnecting");
	});

	describe("a reply whose line breaks", () => {
		async function begin() {
			await ready();
			await type("prompt-input", "Hello?");
			await click("send");
			await say(startedFrame(["p"]), tokensFrame(1, ["Hi"]));
		}

		test("says quietly that it goes on, can be stopped, and goes on in its place", async () => {
			await begin();
			await act(async () => server.onClose(1006, ""));
			expect(find("turn-note")!.textContent).toContain("The reply goes on being written");
			expect([find("ending"), find("error-banner"), find("watch-tab")]).toEqual([null, null, null]);
			expect(find("message-assistant")!.dataset.status).toBe("streaming");
			expect(host.querySelector(".composer-hint")!.textContent).toBe(
				"There is no connection to the server now.",
			);
			await type("slider-joy", "0.5");
			expect(find("slider-status-joy")!.textContent).toBe("waits for the connection");
			await click("stop");
			expect(find<HTMLButtonElement>("stop")!.disabled).toBe(true);
			expect(find("turn-note")!.textContent).toContain("will be stopped");
			await act(async () => {
				session.connection.retryNow();
				server.onOpen();
			});
			await say({ ...welcome, engine: { state: "ready", stage: "", progress: 1 } }, resumedFrame());
			expect(find("turn-note")).toBeNull();
			await say(tokensFrame(2, [" you"]), finishedFrame({ reason: "cancelled" }));
			expect(host.querySelectorAll(".token").length).toBe(2);
			expect(find("ending")!.textContent).toBe("Stopped");
		});

		test("says so when it cannot be fetched any more", async () => {
			await begin();
			await act(async () => server.onClose(1006, ""));
			await act(async () => {
				session.connection.retryNow();
				server.onOpen();
			});
			await say(
				{ ...welcome, engine: { state: "ready", stage: "", progress: 1 } },
				{ type: "error", code: "unknown_run", message: "No.", run: "r1", id: null, rev: null, field: null },
			);
			expect(find("error-banner")!.textContent).toContain("What had arrived is kept.");
			expect(find("ending")!.textContent).toBe("Interrupted");
			expect(find("regenerate")).not.toBeNull();
		});

		test("can be watched in another tab", async () => {
			await begin();
			const link = find<HTMLAnchorElement>("watch-tab")!;
			// Only with an opener does the new tab begin with this tab's storage, where the token is.
			expect([link.getAttribute("href"), link.rel]).toEqual(["#watch=r1", "opener"]);
		});
	});

	test("a reply of which only the text is left says so where its map would be", async () => {
		const run = {
			text: "Hi",
			run: "r1",
			epoch: "e0",
			status: "done",
			finished: finishedFrame({ usage: { prompt_tokens: 12, reply_tokens: 1 } }),
			problem: null,
			stopAsked: false,
		} as const;
		const turns = [{ user: "Hello?", before: "", watched: false, run }];
		await act(async () => session.restore({ turns, asked: null, cut: false }));
		expect(find("message-assistant")!.textContent).toContain("Hi");
		expect(find("heatmap-gone")).toBeNull();
		await ready();
		expect(find("heatmap-gone")!.textContent).toContain("no longer has the numbers of this reply");
		expect([find("turn-note"), find("watch-tab"), find("error-banner")]).toEqual([null, null, null]);
		expect(host.querySelector(".run-stats")!.textContent).toContain("12 prompt, 1 reply");
	});

	test("a queued reply says how many are before it, and can be stopped", async () => {
		await ready();
		await type("prompt-input", "Hello?");
		await click("send");
		expect(find("waiting")!.textContent).toBe("Waiting for the first token");
		await say(startedFrame(["p"]), { type: "queued", run: "r1", seq: 2, position: 3 });
		expect(find("waiting")!.textContent).toBe("Waiting for a place: 2 before you");
		expect(find<HTMLButtonElement>("stop")!.disabled).toBe(false);
		await say({ type: "queued", run: "r1", seq: 3, position: 0 }, tokensFrame(1, ["Hi"]));
		expect(find("waiting")).toBeNull();
	});

	test("a reply that failed says why at its turn", async () => {
		await ready();
		await type("prompt-input", "Hello?");
		await click("send");
		const error = { code: "engine_failed" as const, message: "The engine's process ended." };
		await say(startedFrame(["p"]), finishedFrame({ reason: "error", error }));
		expect(find("message-assistant")!.textContent).toContain("The engine's process ended.");
		expect(find("ending")!.textContent).toBe("Failed");
		expect(find("send")).not.toBeNull();
	});

	test("a server that ends says so and takes no question", async () => {
		await ready();
		await say({
			type: "engine",
			state: "draining",
			stage: "",
			progress: 1,
			model: null,
			metrics: [],
			vectors: [],
		});
		expect(find("engine-state")!.textContent).toBe("The server is about to end");
		await type("prompt-input", "Hello?");
		expect(find<HTMLButtonElement>("send")!.disabled).toBe(true);
		expect(host.querySelector(".composer-hint")!.textContent).toContain("takes no new questions");
	});

	test("a server that asks for a token is told it, and a wrong one is said to be wrong", async () => {
		const refuse = () => act(async () => server.onClose(4401, "The token in hello is missing or wrong."));
		await refuse();
		expect(find("connection-state")!.textContent).toBe("A token is needed");
		expect([find("token-wrong")!.textContent, find<HTMLInputElement>("token")!.type]).toEqual([
			"",
			"password",
		]);
		await type("token", "wrong");
		await click("token-use");
		expect(sessionStorage.getItem("steersight.token.v1")).toBe("wrong");
		await act(async () => server.onOpen());
		expect(sent.at(-1)).toEqual({ type: "hello", token: "wrong" });
		await refuse();
		expect(find("token-wrong")!.textContent).toBe("The server did not accept this token.");
		expect(sessionStorage.getItem("steersight.token.v1")).toBeNull();
		await type("token", "right");
		await click("token-use");
		await ready();
		expect([find("token-form"), sessionStorage.getItem("steersight.token.v1")]).toEqual([null, "right"]);
	});
});
