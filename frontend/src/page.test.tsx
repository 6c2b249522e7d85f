// @vitest-environment happy-dom
// What the page owes to people who do not use it as its makers do: other scripts, input methods, screen readers,
// shared computers.
import { act } from "react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
	finishedFrame,
	metricInfo,
	modelInfo,
	rowsFrame,
	startedFrame,
	tokensFrame,
	vectorInfo,
	welcomeFrame,
} from "./testing";
import { TestPage } from "./testing/page";

const SHALOM = "\u05e9\u05dc\u05d5\u05dd";
const vector = vectorInfo({ label: SHALOM, description: SHALOM, own: true });
const welcome = welcomeFrame({ model: modelInfo(), metrics: [metricInfo()], vectors: [vector] });

let page: TestPage;
beforeEach(() => {
	page = new TestPage();
});
afterEach(async () => {
	vi.useRealTimers();
	await page.close();
});

/** The nearest element around a text that takes its direction from the text, or null. */
const directed = (id: string) => page.find(id)!.closest("[dir=auto]");

describe("texts of people and models, from left to right or from right to left", () => {
	test("each takes its own direction, and the page's words beside it keep theirs", async () => {
		await page.open(welcome);
		expect(directed("prompt-input")).not.toBeNull();
		await page.fill("prompt-input", SHALOM);
		await page.click("send");
		await page.say(startedFrame(["p"]), rowsFrame(0, 1), tokensFrame(1, [SHALOM]), finishedFrame());
		expect(directed("message-user")!.textContent).toBe(SHALOM);
		const reply = page.find("message-assistant")!.querySelector("[dir=auto]")!;
		expect(reply.textContent).toBe(SHALOM);
		expect(directed("regenerate")).toBeNull();
	});

	test("names and descriptions of vectors, and every field that takes words", async () => {
		await page.open(welcome);
		const label = page.host.querySelector("label[for=slider-joy]")!;
		expect([label.getAttribute("dir"), label.textContent]).toEqual(["auto", SHALOM]);
		await page.click("settings");
		await page.click("new-slider");
		for (const id of [
			"setting-system",
			"setting-stop",
			"new-slider-name",
			"new-slider-more",
			"new-slider-less",
		]) {
			expect([id, page.find(id)!.getAttribute("dir")]).toEqual([id, "auto"]);
		}
		await page.click("new-slider-dialog-close");
		await page.click("import");
		expect(page.find("import-label")!.getAttribute("dir")).toBe("auto");
		await page.click("import-dialog-close");
		vi.stubGlobal("fetch", async () => new Response('{"provenance":{},"file_bytes":1}'));
		await page.click("card-toggle-joy");
		expect(page.find("vector-card")!.querySelector("h2")!.getAttribute("dir")).toBe("auto");
	});

	test("inside a sentence a name is set apart", async () => {
		await page.open(welcome);
		await page.fill("prompt-input", "/active");
		await page.click("send");
		expect(page.find("aside")!.querySelector("[dir=auto]")!.textContent).toBe("/active");
		vi.stubGlobal("fetch", async () => new Response('{"provenance":{},"file_bytes":1}'));
		await page.click("card-toggle-joy");
		await page.click("vector-delete");
		expect(page.find("vector-delete-sure")!.querySelector("bdi")!.textContent).toBe(SHALOM);
	});
});

describe("while an input method composes a word", () => {
	const composing = [{ isComposing: true }, { keyCode: 229 }];

	beforeEach(async () => {
		await page.open(welcome);
		await page.fill("prompt-input", "one");
	});

	test.each(composing)("Enter with %o takes the word and sends nothing", async (how) => {
		await page.press(page.find("prompt-input")!, "Enter", how);
		expect(page.starts).toEqual([]);
		await page.press(page.find("prompt-input")!, "Enter");
		expect(page.starts.length).toBe(1);
	});

	test.each(composing)("Escape with %o drops the word and stops no reply", async (how) => {
		await page.click("send");
		await page.say(startedFrame(["p"]));
		await page.press(page.find("prompt-input")!, "Escape", how);
		expect(page.sent.some(({ type }) => type === "stop")).toBe(false);
		await page.press(page.find("prompt-input")!, "Escape");
		expect(page.sent.at(-1)).toEqual({ type: "stop", run: "r1" });
	});

	test.each(composing)("Escape with %o closes no dialog", async (how) => {
		await page.click("new-slider");
		await page.press(page.find("new-slider-name")!, "Escape", how);
		expect(page.find("new-slider-dialog")).not.toBeNull();
		await page.press(page.find("new-slider-name")!, "Escape");
		expect(page.find("new-slider-dialog")).toBeNull();
	});
});

describe("what a screen reader speaks by itself", () => {
	test("that the line is lost, once, and not every second that is counted down", async () => {
		vi.useFakeTimers();
		await page.open(welcome);
		await page.breakOff();
		expect(page.text("connection-state")).toMatch(/Reconnecting in \d+ s/);
		const [seen, spoken] = [new Set<string>(), new Set<string>()];
		for (let i = 0; i < 8; i++) {
			await act(async () => vi.advanceTimersByTime(250));
			seen.add(page.text("connection-state")!);
			spoken.add(page.spoken());
		}
		expect(seen.size).toBeGreaterThan(1);
		expect([...spoken]).toEqual([expect.stringContaining("Reconnecting")]);
	});

	test("not every ping that comes back", async () => {
		await page.open(welcome);
		const before = page.spoken();
		for (const t of [0, 10, 20]) await page.say({ type: "pong", t: performance.now() - t });
		expect(page.text("connection-state")).toMatch(/ ms$/);
		expect(page.spoken()).toBe(before);
	});

	test("not every step of loading, but its end", async () => {
		const loading = { state: "loading" as const, stage: "Loading weights.", progress: 0.1 };
		await page.open({ ...welcome, engine: loading });
		const before = page.spoken();
		const { metrics, vectors, model } = welcome;
		for (const stage of ["Weights 1 of 9.", "Weights 2 of 9."]) {
			await page.say({ type: "engine", ...loading, stage, metrics, vectors, model });
			expect(page.text("engine-state")).toContain(stage);
			expect(page.spoken()).toBe(before);
		}
		await page.say({ type: "engine", state: "ready", stage: "", progress: 1, metrics, vectors, model });
		expect(page.spoken()).toContain("Engine ready");
	});

	test("that a reply waits for a place, and not each step of the queue", async () => {
		await page.open(welcome);
		await page.fill("prompt-input", "one");
		await page.click("send");
		await page.say(startedFrame(["p"]), { type: "queued", run: "r1", seq: 2, position: 9 });
		const before = page.spoken();
		expect(before).toContain("Waiting for a place");
		await page.say({ type: "queued", run: "r1", seq: 3, position: 8 });
		expect(page.text("waiting")).toContain("7 before you");
		expect(page.spoken()).toBe(before);
	});
});

test("an engine that failed says the whole reason where it can be read, also in a conversation", async () => {
	await page.open(welcome);
	await page.fill("prompt-input", "one");
	await page.click("send");
	await page.say(startedFrame(["p"]), tokensFrame(1, ["A"]), finishedFrame());
	const stage = `The weights cannot be read: ${"a long reason, ".repeat(30)}and what to do.`;
	const { metrics, vectors, model } = welcome;
	await page.say({ type: "engine", state: "failed", stage, progress: 0, metrics, vectors, model });
	expect(page.text("engine-failed")).toContain(stage);
	expect(page.text("engine-state")).toBe("Engine failed");
});

test("the system prompt goes with New chat, from the page and from what it keeps", async () => {
	await page.open(welcome);
	await page.click("settings");
	await page.fill("setting-system", "My salary is 12.");
	expect(JSON.stringify({ ...localStorage })).not.toContain("salary");
	expect(JSON.stringify({ ...sessionStorage })).toContain("salary");
	await page.click("new-chat");
	expect(page.find<HTMLTextAreaElement>("setting-system")!.value).toBe("");
	expect(JSON.stringify([{ ...localStorage }, { ...sessionStorage }])).not.toContain("salary");
	await page.fill("prompt-input", "one");
	await page.click("send");
	expect(page.starts[0]!.messages).toEqual([{ role: "user", content: "one" }]);
});
