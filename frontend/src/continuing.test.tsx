// @vitest-environment happy-dom
// A base model has no chat template: it continues a text, and the page does not pretend that it answers.
import { afterEach, beforeEach, expect, test } from "vitest";
import {
	finishedFrame,
	metricInfo,
	modelInfo,
	rowsFrame,
	startedFrame,
	tokensFrame,
	welcomeFrame,
} from "./testing";
import { TestPage } from "./testing/page";

const metrics = [metricInfo()];
const base = welcomeFrame({ model: modelInfo({ id: "gpt2", chat: "none" }), metrics });
const chat = welcomeFrame({ model: modelInfo({ chat: "template" }), metrics });

let page: TestPage;
beforeEach(() => {
	page = new TestPage();
});
afterEach(() => page.close());

const placeholder = () => page.find<HTMLTextAreaElement>("prompt-input")!.placeholder;

test("says that it continues a text, where one is begun", async () => {
	await page.open(base);
	expect(page.host.querySelector(".welcome")!.textContent).toBe(
		"This model continues your textgpt2 is a base model: it knows no questions and answers. " +
			"Write the beginning of a text, and it goes on from there.",
	);
	expect(placeholder()).toBe("Begin a text");
	expect(page.text("new-chat")).toBe(" New text");
});

test("with a chat template nothing of that is said", async () => {
	await page.open(chat);
	expect([placeholder(), page.text("new-chat")]).toEqual(["Ask something", " New chat"]);
	expect(page.host.querySelector(".welcome")!.textContent).not.toContain("continues");
});

test("what was written and what came of it are one text", async () => {
	await page.open(base);
	await page.fill("prompt-input", "Once upon");
	await page.click("send");
	await page.say(
		startedFrame(["Once", " upon"]),
		rowsFrame(0, 2),
		tokensFrame(2, [" a", " time"]),
		finishedFrame(),
	);
	expect(page.find("message-assistant")!.querySelector(".reply")!.textContent).toBe("Once upon a time");
	expect(page.text("message-user")).toBe("Once upon");
	expect(page.host.querySelector(".message-user")).toBeNull();
	expect(placeholder()).toBe("Go on with the text");
});

test("a system prompt is neither offered nor sent: it would be a part of the text", async () => {
	await page.open(chat);
	await page.click("settings");
	await page.fill("setting-system", "Be brief.");
	await page.say(base);
	expect(page.find("setting-system")).toBeNull();
	expect(page.text("settings-panel")).toContain(
		"This model takes no system prompt: it has no chat template.",
	);
	await page.fill("prompt-input", "Once");
	await page.click("send");
	expect(page.starts[0]!.messages).toEqual([{ role: "user", content: "Once" }]);
});

test("on the map stand the text and its continuation, not roles", async () => {
	await page.open(base);
	await page.fill("prompt-input", "Once");
	await page.click("send");
	const started = startedFrame(["Once"]);
	const spans = [{ role: "user", start: 0, end: 1 }];
	await page.say({ ...started, prompt: { ...started.prompt, spans } });
	expect(page.session.shown!.tokens.parts()).toEqual([{ name: "text", start: 0, end: 1 }]);
	await page.say(tokensFrame(1, [" upon"]));
	expect(page.session.shown!.tokens.parts()).toEqual([
		{ name: "text", start: 0, end: 1 },
		{ name: "continuation", start: 1, end: 2 },
	]);
});
