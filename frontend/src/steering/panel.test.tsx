// @vitest-environment happy-dom
// The Steering panel in the whole page: how vectors act, how they are made, brought, shown and shared, and what
// is said while they act. Socket and HTTP are the test's.
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { App } from "../App";
import type { TransportHandlers } from "../connection/transport";
import type { ClientFrame, ServerFrame, Start, VectorInfo } from "../protocol/types.gen";
import { Session } from "../session/session";
import { FrameBatch } from "../store/signal";
import {
	finishedFrame,
	metricInfo,
	rowsFrame,
	startedFrame,
	tokensFrame,
	vectorInfo,
	welcomeFrame,
} from "../testing";

const joy = vectorInfo({ range: [-0.3, 0.3], suggested: 0.2, layers: [1] });
const own = vectorInfo({ id: "calm", label: "Calm", own: true, layers: [0] });
const metrics = ["norm", "steering_share", "projection:joy", "projection_before:joy"].map((id) =>
	metricInfo({ id }),
);
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

let root: Root;
let host: HTMLElement;
let server: TransportHandlers;
let sent: ClientFrame[];
let timers: (() => void)[];
let asked: { method: string; path: string; body: unknown }[];
let answers: Record<string, unknown>;

/** Answers by "METHOD path"; an ApiError's sentence stands under `error`. */
async function fakeFetch(path: string, init?: RequestInit): Promise<Response> {
	const method = init?.method ?? "GET";
	asked.push({ method, path, body: init?.body });
	const answer = answers[`${method} ${path}`] as { error?: string } | null | undefined;
	if (answer === undefined) return new Response('{"error":"Nobody expects this."}', { status: 404 });
	if (answer === null) return new Response(null, { status: 204 });
	return new Response(JSON.stringify(answer), {
		status: typeof answer.error === "string" && !("job" in answer) ? 422 : 200,
	});
}

beforeEach(async () => {
	vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
	vi.stubGlobal("fetch", fakeFetch);
	vi.stubGlobal(
		"ResizeObserver",
		class {
			observe() {}
			disconnect() {}
		},
	);
	[sent, timers, asked, answers] = [[], [], [], {}];
	const session = new Session(
		(handlers) => {
			server = handlers;
			return { send: (frame) => sent.push(frame) > 0, close: () => {} };
		},
		null,
		// As on a page, state is told of after the event that changed it.
		new FrameBatch((callback) => void Promise.resolve().then(callback)),
		{
			now: () => timers.length * 1000,
			random: () => 0,
			setTimeout: (call) => timers.push(call),
			clearTimeout: () => {},
		},
	);
	session.connection.connect();
	host = document.createElement("div");
	document.body.append(host);
	root = createRoot(host);
	await act(async () => root.render(<App session={session} />));
	await act(async () => server.onOpen());
	await say(welcomeFrame({ model, metrics, vectors: [joy, own] }));
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
const text = (id: string) => find(id)?.textContent ?? null;
const say = (...frames: ServerFrame[]) =>
	act(async () => {
		for (const frame of frames) server.onFrame(frame);
	});
const click = (id: string) => act(async () => find(id)!.click());
/** Every timer that waits now. */
const tick = () =>
	act(async () => {
		for (const call of timers.splice(0)) call();
	});
const starts = () => sent.filter((frame): frame is Start => frame.type === "start");
const steers = () => sent.filter((frame) => frame.type === "steer");

async function fill(id: string, value: string) {
	const field = find<HTMLInputElement>(id)!;
	await act(async () => {
		Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value")!.set!.call(field, value);
		field.dispatchEvent(new Event(field.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
	});
}
async function ask(question = "Hello?") {
	await fill("prompt-input", question);
	await click("send");
}
const engine = (vectors: VectorInfo[]): ServerFrame => ({
	type: "engine",
	state: "ready",
	stage: "Ready.",
	progress: 1,
	model,
	metrics,
	vectors,
});

describe("how a vector acts", () => {
	test("is chosen under its slider, moves the bounds and travels with the start", async () => {
		expect(text("how-toggle-joy")).toBe("layer 1");
		await click("how-toggle-joy");
		const options = [...find("operator-joy")!.querySelectorAll("option")].map((one) => one.value);
		expect(options).toEqual(joy.operators);
		await fill("operator-joy", "ablate");
		expect(text("how-about-joy")).toBe(
			"Takes out what the stream has along the vector. Strength 1 takes out all of it.",
		);
		expect(find<HTMLInputElement>("slider-joy")!.max).toBe("1");
		await fill("slider-joy", "1");
		await fill("scope-joy", "reply");
		await fill("first-joy", "8");
		await fill("layers-joy", "range");
		await fill("from-joy", "0");
		expect(text("how-toggle-joy")).toBe("Ablate, reply only, first 8 tokens, layers 0\u20131");
		await ask();
		expect(starts()[0]).toMatchObject({
			strengths: { joy: 1 },
			settings: { joy: { operator: "ablate", scope: "reply", first: 8, layers: [0, 1] } },
		});
		await click("own-way-joy");
		expect(find<HTMLInputElement>("slider-joy")!.value).toBe("0.3");
		await say(startedFrame(["p"]));
		expect(steers().at(-1)).toMatchObject({ strengths: { joy: 0.3 }, settings: {} });
	});

	test("chosen elsewhere shows in the open choice, and what is typed here stays as it was typed", async () => {
		await click("how-toggle-joy");
		await fill("layers-joy", "range");
		expect(find<HTMLSelectElement>("layers-joy")!.value).toBe("range");
		await fill("prompt-input", "/steer joy 1 ablate");
		await click("send");
		expect(find<HTMLSelectElement>("operator-joy")!.value).toBe("ablate");
	});

	test("what cannot be used says why and is not taken", async () => {
		await click("how-toggle-joy");
		await fill("operator-joy", "clamp");
		expect(text("how-about-joy")).toBe("Clamp needs a bound.");
		expect(text("how-toggle-joy")).toBe("layer 1");
		await fill("hi-joy", "0.1");
		expect(text("how-toggle-joy")).toBe("Clamp, at most 0.1");
		await fill("layers-joy", "one");
		await fill("from-joy", "7");
		expect(text("how-about-joy")).toBe("Layers go from 0 to 1.");
		expect(text("how-toggle-joy")).toBe("Clamp, at most 0.1, layer 1");
	});
});

describe("while a run is steered", () => {
	async function begin(strength = "0.2") {
		await fill("slider-joy", strength);
		await ask();
		await say(startedFrame(["p"]));
	}
	const row = (start: number, count: number, rev = 0) =>
		rowsFrame(start, count, {
			metrics: ["steering_share", "projection:joy", "projection_before:joy"],
			value: (_, metric, layer) => (metric === 0 ? layer / 4 : metric === 1 ? 0.5 : 0.25),
			rev: () => rev,
			entropy: () => 2,
		});

	test("projection, share per layer, repetition and entropy are shown", async () => {
		expect(find("run-signs")).toBeNull();
		await begin();
		expect(starts()[0]!.metrics).toEqual([
			"norm",
			"steering_share",
			"projection:joy",
			"projection_before:joy",
		]);
		await say(
			tokensFrame(
				1,
				Array.from({ length: 14 }, (_, i) => ` word${i}`),
			),
			row(0, 15),
		);
		expect(text("projection-joy")).toBe("projection 0.500, before steering 0.250 (layer 1)");
		expect(find("steering-share")!.dataset.most).toBe("0.2500");
		expect([text("repetition"), text("entropy")]).toEqual(["0 %", "2.00 nats"]);
		expect(find("projection-calm")).toBeNull();
	});

	test("a reply that breaks is said so at its slider, until it recovers", async () => {
		await begin();
		await say(tokensFrame(1, Array(30).fill(" of the")), row(0, 30));
		expect(text("breaking-joy")).toBe("This strength is breaking the reply.");
		expect(text("breaking")).toBe("This strength is breaking the reply.");
		expect(find("breaking")!.getAttribute("aria-live")).toBe("polite");
		await say(
			tokensFrame(
				31,
				Array.from({ length: 20 }, (_, i) => ` word${i}`),
			),
		);
		expect([text("breaking-joy"), text("breaking")]).toEqual([null, ""]);
	});

	test("the next reply begins without a warning", async () => {
		await begin();
		await say(tokensFrame(1, Array(30).fill(" of the")));
		await say(finishedFrame({ reason: "length" }));
		expect(text("breaking-joy")).not.toBeNull();
		await ask("And now?");
		expect(text("breaking-joy")).toBeNull();
	});

	test("back at 0 explains what stays, and writes on from there in the same reply", async () => {
		await begin();
		await say(tokensFrame(1, ["Once"]), row(0, 1));
		await fill("slider-joy", "0");
		expect(text("left-behind-joy")).toContain("Tokens written under steering stay in the model's memory.");
		await click("write-on-joy");
		expect(sent.at(-1)).toEqual({ type: "stop", run: "r1" });
		await say(finishedFrame({ reason: "cancelled" }));
		const start = starts()[1]!;
		expect(start).toMatchObject({ write_on: true, strengths: {} });
		expect(start.messages.at(-1)).toEqual({ role: "assistant", content: "Once" });
		await say(startedFrame(["p", "Once"], start.id, "r2"), tokensFrame(2, [" more"], undefined, "r2"));
		const reply = host.querySelectorAll<HTMLElement>('[data-testid="message-assistant"]');
		expect(reply.length).toBe(1);
		expect(reply[0]!.dataset.run).toBe("r2");
		expect([...reply[0]!.querySelectorAll(".token")].map((one) => one.textContent)).toEqual([
			"Once",
			" more",
		]);
		expect(find("left-behind-joy")).toBeNull();
	});
});

describe("a new slider", () => {
	const result = {
		vector: vectorInfo({ id: "brave", label: "Brave", own: true }),
		layer: 1,
		range: [-0.2, 0.25],
		suggested: 0.15,
		separation: [
			{ layer: 0, score: 0.6 },
			{ layer: 1, score: 0.95 },
		],
		sweep: [
			{ strength: -0.2, effect: -0.5, damage: 0.1, sample: "I would rather not." },
			{ strength: 0.15, effect: 0.4, damage: 0.05, sample: "Forward!" },
		],
	};
	const state = (changes: object) => ({
		job: "j1",
		state: "running",
		stage: "Reading topic 3 of 12.",
		progress: 0.25,
		error: null,
		result: null,
		...changes,
	});

	async function begin() {
		await click("new-slider");
		expect(find<HTMLDialogElement>("new-slider-dialog")!.open).toBe(true);
		expect(find<HTMLButtonElement>("new-slider-go")!.disabled).toBe(true);
		await fill("new-slider-name", "Brave");
		await fill("new-slider-more", "You are brave.");
		await fill("new-slider-less", "You are timid.");
		answers["POST /api/vectors/build"] = { job: "j1" };
		await click("new-slider-go");
	}

	test("is made, looked at and used", async () => {
		await begin();
		expect(asked[0]!.body).toBe(
			JSON.stringify({ label: "Brave", positive: "You are brave.", negative: "You are timid." }),
		);
		answers["GET /api/vectors/build/j1"] = state({});
		await tick();
		expect(text("build-stage")).toBe("Reading topic 3 of 12.");
		answers["GET /api/vectors/build/j1"] = state({ state: "done", result });
		await tick();
		expect(find("build-separation")!.getAttribute("aria-label")).toBe(
			"Separation per layer. Layer 1 was chosen. It tells 95 % of held-out pairs apart.",
		);
		expect(text("build-samples")).toContain("Forward!");
		await say(engine([joy, own, result.vector]));
		await click("build-use");
		expect(find("new-slider-dialog")).toBeNull();
		expect(find<HTMLInputElement>("slider-brave")!.value).toBe("0.15");
		expect(find("build-line")).toBeNull();
	});

	test("goes on with its dialog closed; a line in the panel shows it and opens it again", async () => {
		await begin();
		answers["GET /api/vectors/build/j1"] = state({});
		await click("new-slider-dialog-close");
		await tick();
		expect(text("build-line")).toContain("Brave: Reading topic 3 of 12.");
		await click("build-open");
		expect(find("building")).not.toBeNull();
		answers["DELETE /api/vectors/build/j1"] = null;
		await click("build-cancel");
		answers["GET /api/vectors/build/j1"] = state({ state: "cancelled" });
		await tick();
		expect(text("new-slider-dialog")).toContain("The build was cancelled.");
		expect(find<HTMLTextAreaElement>("new-slider-more")!.value).toBe("You are brave.");
	});

	test("from example texts sends lists of lines; a refusal is the server's sentence", async () => {
		await click("new-slider");
		await click("new-slider-examples");
		await fill("new-slider-name", "Brave");
		await fill("new-slider-more", "Onward!\n\n We hold. ");
		await fill("new-slider-less", "Let us wait.");
		answers["POST /api/vectors/build"] = { error: "Each side needs at least 4 texts." };
		await click("new-slider-go");
		expect(JSON.parse(asked[0]!.body as string)).toEqual({
			label: "Brave",
			positive: ["Onward!", "We hold."],
			negative: ["Let us wait."],
		});
		expect(text("new-slider-dialog")).toContain("Each side needs at least 4 texts.");
	});
});

describe("an import", () => {
	const report = {
		format: "repeng / llama.cpp control vector (GGUF)",
		found: ["Directions for 2 layers."],
		problems: ["Layer 9 is left out: this model has 2 layers."],
		vectors: [vectorInfo({ id: "honest", label: "Honest", layers: [0, 1] })],
	};
	async function choose(file: File) {
		const input = find<HTMLInputElement>("import-file")!;
		await act(async () => {
			Object.defineProperty(input, "files", { value: [file], configurable: true });
			input.dispatchEvent(new Event("change", { bubbles: true }));
		});
	}

	test("is tried first, then added", async () => {
		await click("import");
		answers["POST /api/vectors?name=honest.gguf&try=1"] = report;
		await choose(new File(["GGUF"], "honest.gguf"));
		expect(text("import-report")).toContain("Directions for 2 layers.");
		expect(text("import-problems")).toBe("Layer 9 is left out: this model has 2 layers.");
		expect(text("import-vectors")).toBe("Fits this model: Honest (layers 0\u20131).");
		answers["POST /api/vectors?name=honest.gguf"] = report;
		await click("import-add");
		expect(text("import-added")).toBe("The slider is in the Steering panel.");
		expect(asked.map(({ path }) => path)).toEqual([
			"/api/vectors?name=honest.gguf&try=1",
			"/api/vectors?name=honest.gguf",
		]);
	});

	test("of what does not fit is the server's sentence, and another file can be chosen", async () => {
		await click("import");
		answers["POST /api/vectors?name=x.pt&try=1"] = { error: "x.pt is a pickle, which could run code." };
		await choose(new File(["x"], "x.pt"));
		expect(text("import-dialog")).toContain("x.pt is a pickle, which could run code.");
		expect(find("import-add")).toBeNull();
		expect(find<HTMLInputElement>("import-file")!.disabled).toBe(false);
	});

	test("of a huge file is refused before it travels", async () => {
		await click("import");
		const huge = new File([], "huge.gguf");
		Object.defineProperty(huge, "size", { value: 65 * 1024 * 1024 });
		await choose(huge);
		expect(text("import-dialog")).toContain("huge.gguf is larger than 64 MiB.");
		expect(asked).toEqual([]);
	});
});

describe("a vector's card", () => {
	test("tells how it was made and offers its file; a bundled one cannot be deleted", async () => {
		answers["GET /api/vectors/joy"] = {
			info: joy,
			provenance: { method: "difference in means", topics: ["rain", "tea"], date: null },
			file_bytes: 3000,
		};
		await click("card-toggle-joy");
		expect(text("provenance")).toBe("methoddifference in meanstopicsrain\ntea");
		expect(text("vector-card")).toContain("3 KiB");
		answers["GET /api/vectors/joy/file"] = { any: "bytes" };
		const saved: string[] = [];
		vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
			saved.push(this.download, this.href.slice(0, 5));
		});
		await click("vector-download");
		expect(asked.at(-1)).toMatchObject({ method: "GET", path: "/api/vectors/joy/file" });
		expect(saved).toEqual(["joy.safetensors", "blob:"]);
		vi.restoreAllMocks();
		expect(find("vector-delete")).toBeNull();
	});

	test("of an own one deletes it after a second word", async () => {
		answers["GET /api/vectors/calm"] = { info: own, provenance: {}, file_bytes: 3_000_000 };
		await click("card-toggle-calm");
		await click("vector-delete");
		expect(asked.some(({ method }) => method === "DELETE")).toBe(false);
		answers["DELETE /api/vectors/calm"] = null;
		await click("vector-delete-sure");
		expect(asked.at(-1)).toMatchObject({ method: "DELETE", path: "/api/vectors/calm" });
		expect(find("vector-card")).toBeNull();
		await say(engine([joy]));
		expect(find("slider-calm")).toBeNull();
	});

	test("Escape puts it away and does not stop a reply", async () => {
		await ask();
		await say(startedFrame(["p"]));
		await click("card-toggle-joy");
		await act(async () => {
			const press = new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true });
			find("vector-card-close")!.dispatchEvent(press);
		});
		expect(find("vector-card")).toBeNull();
		expect(sent.some((frame) => frame.type === "stop")).toBe(false);
	});
});

test("a link carries the sliders that are not at rest", async () => {
	expect(find<HTMLButtonElement>("share")!.disabled).toBe(true);
	const copied: string[] = [];
	vi.stubGlobal("navigator", { clipboard: { writeText: async (link: string) => void copied.push(link) } });
	await fill("slider-joy", "0.25");
	await click("share");
	expect(copied[0]).toMatch(/#s=joy,0\.25$/);
	expect(text("share")).toContain("Link copied");
	await fill("slider-joy", "0.1");
	expect(text("share")).toContain("Share");
});

test("commands act on the sliders, are answered in the chat and never sent", async () => {
	await fill("prompt-input", "/steer joy 0.2");
	await click("send");
	expect(find<HTMLInputElement>("slider-joy")!.value).toBe("0.2");
	expect(text("aside")).toBe("/steer joy 0.2Joy is at 0.2.");
	expect(find<HTMLTextAreaElement>("prompt-input")!.value).toBe("");
	expect(starts()).toEqual([]);
	await ask();
	expect(starts()[0]!.messages).toEqual([{ role: "user", content: "Hello?" }]);
});
