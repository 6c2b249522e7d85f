// @vitest-environment happy-dom
// The Steering panel in the whole page: how vectors act, how they are made, brought, shown and shared, and what
// is said while they act. Socket and HTTP are the test's.
import { act } from "react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
	engineFrame,
	finishedFrame,
	metricInfo,
	modelInfo,
	rowsFrame,
	startedFrame,
	tokensFrame,
	vectorInfo,
	welcomeFrame,
} from "../testing";
import { afterwards, TestPage } from "../testing/page";
import { STILL } from "../testing/server";

const joy = vectorInfo({ range: [-0.3, 0.3], suggested: 0.2, layers: [1] });
const own = vectorInfo({ id: "calm", label: "Calm", own: true, layers: [0] });
const metrics = ["norm", "steering_share", "projection:joy", "projection_before:joy"].map((id) =>
	metricInfo({ id }),
);
const model = modelInfo();

let page: TestPage;
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
	vi.stubGlobal("fetch", fakeFetch);
	[timers, asked, answers] = [[], [], {}];
	page = new TestPage(afterwards, {
		...STILL,
		now: () => timers.length * 1000,
		setTimeout: (call) => timers.push(call),
	});
	await page.open(welcomeFrame({ model, metrics, vectors: [joy, own] }));
});
afterEach(() => page.close());

/** Every timer that waits now. */
const tick = () =>
	act(async () => {
		for (const call of timers.splice(0)) call();
	});

describe("how a vector acts", () => {
	test("is chosen under its slider, moves the bounds and travels with the start", async () => {
		expect(page.text("how-toggle-joy")).toBe("layer 1");
		await page.click("how-toggle-joy");
		const options = [...page.find("operator-joy")!.querySelectorAll("option")].map((one) => one.value);
		expect(options).toEqual(joy.operators);
		await page.fill("operator-joy", "ablate");
		expect(page.text("how-about-joy")).toBe(
			"Takes out what the stream has along the vector. Strength 1 takes out all of it.",
		);
		expect(page.find<HTMLInputElement>("slider-joy")!.max).toBe("1");
		await page.fill("slider-joy", "1");
		await page.fill("scope-joy", "reply");
		await page.fill("first-joy", "8");
		await page.fill("layers-joy", "range");
		await page.fill("from-joy", "0");
		expect(page.text("how-toggle-joy")).toBe("Ablate, reply only, first 8 tokens, layers 0\u20131");
		await page.ask();
		expect(page.starts[0]).toMatchObject({
			strengths: { joy: 1 },
			settings: { joy: { operator: "ablate", scope: "reply", first: 8, layers: [0, 1] } },
		});
		await page.click("own-way-joy");
		expect(page.value("slider-joy")).toBe("0.3");
		await page.say(startedFrame(["p"]));
		expect(page.server.all("steer").at(-1)).toMatchObject({ strengths: { joy: 0.3 }, settings: {} });
	});

	test("chosen elsewhere shows in the open choice, and what is typed here stays as it was typed", async () => {
		await page.click("how-toggle-joy");
		await page.fill("layers-joy", "range");
		expect(page.value("layers-joy")).toBe("range");
		await page.ask("/steer joy 1 ablate");
		expect(page.value("operator-joy")).toBe("ablate");
	});

	test("what cannot be used says why and is not taken", async () => {
		await page.click("how-toggle-joy");
		await page.fill("operator-joy", "clamp");
		expect(page.text("how-about-joy")).toBe("Clamp needs a bound.");
		expect(page.text("how-toggle-joy")).toBe("layer 1");
		await page.fill("hi-joy", "0.1");
		expect(page.text("how-toggle-joy")).toBe("Clamp, at most 0.1");
		await page.fill("layers-joy", "one");
		await page.fill("from-joy", "7");
		expect(page.text("how-about-joy")).toBe("Layers go from 0 to 1.");
		expect(page.text("how-toggle-joy")).toBe("Clamp, at most 0.1, layer 1");
	});
});

describe("while a run is steered", () => {
	async function begin(strength = "0.2") {
		await page.fill("slider-joy", strength);
		await page.ask();
		await page.say(startedFrame(["p"]));
	}
	const row = (start: number, count: number, rev = 0) =>
		rowsFrame(start, count, {
			metrics: ["steering_share", "projection:joy", "projection_before:joy"],
			value: (_, metric, layer) => (metric === 0 ? layer / 4 : metric === 1 ? 0.5 : 0.25),
			rev: () => rev,
			entropy: () => 2,
		});

	test("projection, share per layer, repetition and entropy are shown", async () => {
		expect(page.find("run-signs")).toBeNull();
		await begin();
		expect(page.starts[0]!.metrics).toEqual([
			"norm",
			"steering_share",
			"projection:joy",
			"projection_before:joy",
		]);
		await page.say(
			tokensFrame(
				1,
				Array.from({ length: 14 }, (_, i) => ` word${i}`),
			),
			row(0, 15),
		);
		expect(page.text("projection-joy")).toBe("projection 0.500, before steering 0.250 (layer 1)");
		expect(page.find("steering-share")!.dataset.most).toBe("0.2500");
		expect([page.text("repetition"), page.text("entropy")]).toEqual(["0 %", "2.00 nats"]);
		expect(page.find("projection-calm")).toBeNull();
	});

	test("a reply that breaks is said so at its slider, until it recovers", async () => {
		await begin();
		await page.say(tokensFrame(1, Array(30).fill(" of the")), row(0, 30));
		expect(page.text("breaking-joy")).toBe("This strength is breaking the reply.");
		expect(page.text("breaking")).toBe("This strength is breaking the reply.");
		expect(page.find("breaking")!.getAttribute("aria-live")).toBe("polite");
		await page.say(
			tokensFrame(
				31,
				Array.from({ length: 20 }, (_, i) => ` word${i}`),
			),
		);
		expect([page.text("breaking-joy"), page.text("breaking")]).toEqual([null, ""]);
	});

	test("the next reply begins without a warning", async () => {
		await begin();
		await page.say(tokensFrame(1, Array(30).fill(" of the")));
		await page.say(finishedFrame({ reason: "length" }));
		expect(page.text("breaking-joy")).not.toBeNull();
		await page.ask("And now?");
		expect(page.text("breaking-joy")).toBeNull();
	});

	test("back at 0 explains what stays, and writes on from there in the same reply", async () => {
		await begin();
		await page.say(tokensFrame(1, ["Once"]), row(0, 1));
		await page.fill("slider-joy", "0");
		expect(page.text("left-behind-joy")).toContain(
			"Tokens written under steering stay in the model's memory.",
		);
		await page.click("write-on-joy");
		expect(page.sent.at(-1)).toEqual({ type: "stop", run: "r1" });
		await page.say(finishedFrame({ reason: "cancelled" }));
		const start = page.starts[1]!;
		expect(start).toMatchObject({ write_on: true, strengths: {} });
		expect(start.messages.at(-1)).toEqual({ role: "assistant", content: "Once" });
		await page.say(startedFrame(["p", "Once"], start.id, "r2"), tokensFrame(2, [" more"], undefined, "r2"));
		const reply = page.host.querySelectorAll<HTMLElement>('[data-testid="message-assistant"]');
		expect(reply.length).toBe(1);
		expect(reply[0]!.dataset.run).toBe("r2");
		expect([...reply[0]!.querySelectorAll(".token")].map((one) => one.textContent)).toEqual([
			"Once",
			" more",
		]);
		expect(page.find("left-behind-joy")).toBeNull();
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
		await page.click("new-slider");
		expect(page.find<HTMLDialogElement>("new-slider-dialog")!.open).toBe(true);
		expect(page.find<HTMLButtonElement>("new-slider-go")!.disabled).toBe(true);
		await page.fill("new-slider-name", "Brave");
		await page.fill("new-slider-more", "You are brave.");
		await page.fill("new-slider-less", "You are timid.");
		answers["POST api/vectors/build"] = { job: "j1" };
		await page.click("new-slider-go");
	}

	test("is made, looked at and used", async () => {
		await begin();
		expect(asked[0]!.body).toBe(
			JSON.stringify({ label: "Brave", positive: "You are brave.", negative: "You are timid." }),
		);
		answers["GET api/vectors/build/j1"] = state({});
		await tick();
		expect(page.text("build-stage")).toBe("Reading topic 3 of 12.");
		answers["GET api/vectors/build/j1"] = state({ state: "done", result });
		await tick();
		expect(page.find("build-separation")!.getAttribute("aria-label")).toBe(
			"Separation per layer. Layer 1 was chosen. It tells 95 % of held-out pairs apart.",
		);
		expect(page.text("build-samples")).toContain("Forward!");
		await page.say(engineFrame({ model, metrics, vectors: [joy, own, result.vector] }));
		await page.click("build-use");
		expect(page.find("new-slider-dialog")).toBeNull();
		expect(page.value("slider-brave")).toBe("0.15");
		expect(page.find("build-line")).toBeNull();
	});

	test("goes on with its dialog closed; a line in the panel shows it and opens it again", async () => {
		await begin();
		answers["GET api/vectors/build/j1"] = state({});
		await page.click("new-slider-dialog-close");
		await tick();
		expect(page.text("build-line")).toContain("Brave: Reading topic 3 of 12.");
		await page.click("build-open");
		expect(page.find("building")).not.toBeNull();
		answers["DELETE api/vectors/build/j1"] = null;
		await page.click("build-cancel");
		answers["GET api/vectors/build/j1"] = state({ state: "cancelled" });
		await tick();
		expect(page.text("new-slider-dialog")).toContain("The build was cancelled.");
		expect(page.value("new-slider-more")).toBe("You are brave.");
	});

	test("from example texts sends lists of lines; a refusal is the server's sentence", async () => {
		await page.click("new-slider");
		await page.click("new-slider-examples");
		await page.fill("new-slider-name", "Brave");
		await page.fill("new-slider-more", "Onward!\n\n We hold. ");
		await page.fill("new-slider-less", "Let us wait.");
		answers["POST api/vectors/build"] = { error: "Each side needs at least 4 texts." };
		await page.click("new-slider-go");
		expect(JSON.parse(asked[0]!.body as string)).toEqual({
			label: "Brave",
			positive: ["Onward!", "We hold."],
			negative: ["Let us wait."],
		});
		expect(page.text("new-slider-dialog")).toContain("Each side needs at least 4 texts.");
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
		const input = page.find<HTMLInputElement>("import-file")!;
		await act(async () => {
			Object.defineProperty(input, "files", { value: [file], configurable: true });
			input.dispatchEvent(new Event("change", { bubbles: true }));
		});
	}

	test("is tried first, then added", async () => {
		await page.click("import");
		answers["POST api/vectors?name=honest.gguf&try=1"] = report;
		await choose(new File(["GGUF"], "honest.gguf"));
		expect(page.text("import-report")).toContain("Directions for 2 layers.");
		expect(page.text("import-problems")).toBe("Layer 9 is left out: this model has 2 layers.");
		expect(page.text("import-vectors")).toBe("Fits this model: Honest (layers 0\u20131).");
		answers["POST api/vectors?name=honest.gguf"] = report;
		await page.click("import-add");
		expect(page.text("import-added")).toBe("The slider is in the Steering panel.");
		expect(asked.map(({ path }) => path)).toEqual([
			"api/vectors?name=honest.gguf&try=1",
			"api/vectors?name=honest.gguf",
		]);
	});

	test("of what does not fit is the server's sentence, and another file can be chosen", async () => {
		await page.click("import");
		answers["POST api/vectors?name=x.pt&try=1"] = { error: "x.pt is a pickle, which could run code." };
		await choose(new File(["x"], "x.pt"));
		expect(page.text("import-dialog")).toContain("x.pt is a pickle, which could run code.");
		expect(page.find("import-add")).toBeNull();
		expect(page.find<HTMLInputElement>("import-file")!.disabled).toBe(false);
	});

	test("of a huge file is refused before it travels", async () => {
		await page.click("import");
		const huge = new File([], "huge.gguf");
		Object.defineProperty(huge, "size", { value: 65 * 1024 * 1024 });
		await choose(huge);
		expect(page.text("import-dialog")).toContain("huge.gguf is larger than 64 MiB.");
		expect(asked).toEqual([]);
	});
});

describe("a vector's card", () => {
	test("tells how it was made and offers its file; a bundled one cannot be deleted", async () => {
		answers["GET api/vectors/joy"] = {
			info: joy,
			provenance: { method: "difference in means", topics: ["rain", "tea"], date: null },
			file_bytes: 3000,
		};
		await page.click("card-toggle-joy");
		expect(page.text("provenance")).toBe("methoddifference in meanstopicsrain\ntea");
		expect(page.text("vector-card")).toContain("3 KiB");
		answers["GET api/vectors/joy/file"] = { any: "bytes" };
		const saved: string[] = [];
		vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
			saved.push(this.download, this.href.slice(0, 5));
		});
		await page.click("vector-download");
		expect(asked.at(-1)).toMatchObject({ method: "GET", path: "api/vectors/joy/file" });
		expect(saved).toEqual(["joy.safetensors", "blob:"]);
		vi.restoreAllMocks();
		expect(page.find("vector-delete")).toBeNull();
	});

	test("of an own one deletes it after a second word", async () => {
		answers["GET api/vectors/calm"] = { info: own, provenance: {}, file_bytes: 3_000_000 };
		await page.click("card-toggle-calm");
		await page.click("vector-delete");
		expect(asked.some(({ method }) => method === "DELETE")).toBe(false);
		answers["DELETE api/vectors/calm"] = null;
		await page.click("vector-delete-sure");
		expect(asked.at(-1)).toMatchObject({ method: "DELETE", path: "api/vectors/calm" });
		expect(page.find("vector-card")).toBeNull();
		await page.say(engineFrame({ model, metrics, vectors: [joy] }));
		expect(page.find("slider-calm")).toBeNull();
	});

	test("Escape puts it away and does not stop a reply", async () => {
		await page.ask();
		await page.say(startedFrame(["p"]));
		await page.click("card-toggle-joy");
		await act(async () => {
			const press = new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true });
			page.find("vector-card-close")!.dispatchEvent(press);
		});
		expect(page.find("vector-card")).toBeNull();
		expect(page.sent.some((frame) => frame.type === "stop")).toBe(false);
	});
});

test("a link carries the sliders that are not at rest", async () => {
	expect(page.find<HTMLButtonElement>("share")!.disabled).toBe(true);
	const copied: string[] = [];
	vi.stubGlobal("navigator", { clipboard: { writeText: async (link: string) => void copied.push(link) } });
	await page.fill("slider-joy", "0.25");
	await page.click("share");
	expect(copied[0]).toMatch(/#s=joy,0\.25$/);
	expect(page.text("share")).toContain("Link copied");
	await page.fill("slider-joy", "0.1");
	expect(page.text("share")).toContain("Share");
});

test("commands act on the sliders, are answered in the chat and never sent", async () => {
	await page.ask("/steer joy 0.2");
	expect(page.value("slider-joy")).toBe("0.2");
	expect(page.text("aside")).toBe("/steer joy 0.2Joy is at 0.2.");
	expect(page.value("prompt-input")).toBe("");
	expect(page.starts).toEqual([]);
	await page.ask();
	expect(page.starts[0]!.messages).toEqual([{ role: "user", content: "Hello?" }]);
});
