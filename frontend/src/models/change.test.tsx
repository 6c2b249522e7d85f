// @vitest-environment happy-dom
// The served model on the page: which it is, the way to another, and what stays of what the one before wrote.
import { act } from "react";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findKept, keep } from "../session/kept";
import { engineFrame, finishedFrame, modelInfo, startedFrame, tokensFrame, welcomeFrame } from "../testing";
import { joy, offers, SteeringPage } from "../testing/steeringPage";
import { endsText, type ModelHere, sizeText } from "./api";

let page: SteeringPage;
beforeEach(() => {
	page = new SteeringPage();
});
afterEach(() => page.close());

const here = (changes: Partial<ModelHere> = {}): ModelHere => ({
	id: "tiny",
	where: "data folder",
	size_bytes: 260 * 2 ** 20,
	parameters: 134_515_008,
	dtype: "bfloat16",
	layers: 2,
	context: 8192,
	fits: true,
	needs_bytes: 2 ** 30,
	on: "cpu",
	why: null,
	...changes,
});
const models = [
	here(),
	here({ id: "org/other" }),
	here({ id: "huge", fits: false, why: "It needs 33 GiB." }),
];
const listed = (changes: object = {}) => ({ models, served: "tiny", live: 0, failed: null, ...changes });

function open(changes: object = {}) {
	return page.open(welcomeFrame({ ...offers, vectors: [joy], change_model: true, ...changes }));
}

const button = (label: string) =>
	page.host.querySelector<HTMLButtonElement>(`button[aria-label="${label}"]`)!;

test("a server that lets nobody change it offers no way", async () => {
	await open({ change_model: false });
	expect(page.text("model")).toBe("tiny");
	expect(page.find("change-model")).toBeNull();
});

test("a person sees what is here and what a change ends before it begins", async () => {
	await open();
	page.answers["GET api/models"] = listed();
	await page.click("change-model");
	expect(page.text("models")).toContain("135 million parameters, 2 layers, 260 MiB");
	expect(page.text("models")).toContain("It needs 33 GiB.");
	expect(page.text("models")).toContain("served now");
	expect([button("Serve tiny"), button("Serve huge").disabled]).toEqual([null, true]);
	page.answers["GET api/models"] = listed({ live: 3 });
	await act(async () => button("Serve org/other").click());
	expect(page.text("model-ends")).toContain("3 replies are being written, yours and other people's.");
	expect(page.asked.map(({ method }) => method)).toEqual(["GET", "GET"]);
	page.answers["POST api/model"] = null;
	await page.click("model-change");
	expect(page.asked.at(-1)).toEqual({ method: "POST", path: "api/model", body: '{"id":"org/other"}' });
	expect(page.find("model-dialog")).toBeNull();
});

test("a refusal is read where the person is", async () => {
	await open();
	page.answers["GET api/models"] = listed({ failed: "huge could not be served. No." });
	await page.click("change-model");
	expect(page.text("model-dialog")).toContain("The last change failed. huge could not be served. No.");
	await act(async () => button("Serve org/other").click());
	page.answers["POST api/model"] = { error: "Somebody else is changing the model just now." };
	await page.click("model-change");
	expect(page.text("model-dialog")).toContain("Somebody else is changing the model just now.");
	expect(page.find("models")).not.toBeNull();
});

test("while the engine loads there is nothing to change", async () => {
	await open({ engine: { state: "loading", stage: "Loading.", progress: 0.5 } });
	expect(page.find<HTMLButtonElement>("change-model")!.disabled).toBe(true);
});

const OTHER = modelInfo({ id: "org/other", layers: 5, special_ids: [], max_model_len: 32 });

async function reply() {
	await page.ask();
	const { id } = page.starts.at(-1)!;
	await page.say(
		{ ...startedFrame(["Hello", "?"], id), model: "tiny" },
		tokensFrame(2, ["Good", "<end>"], [7, 8]),
	);
}

test("what the model before wrote stays, and says who wrote it", async () => {
	await open({ model: modelInfo({ special_ids: [8] }) });
	await reply();
	expect(page.find("written-by")).toBeNull();
	const error = { code: "model_changed" as const, message: "The model is being changed, which ends this." };
	await page.say(
		finishedFrame({ reason: "error", error }),
		engineFrame({ state: "loading", stage: "The model is being changed to org/other." }),
	);
	expect(page.text("engine-state")).toContain("The model is being changed to org/other.");
	expect(page.text("error-banner")).toContain("which ends this");
	expect(page.host.textContent).toContain(
		"The model is being changed to org/other. You can write your question already.",
	);
	await page.say(engineFrame({ ...offers, state: "loading", model: OTHER, vectors: [] }));
	await page.say(engineFrame({ ...offers, state: "ready", model: OTHER, vectors: [] }));
	expect(page.text("model")).toBe("org/other");
	expect(page.text("notice-banner")).toContain("The model of this server is changed to org/other.");
	expect(page.text("written-by")).toBe("Written by tiny");
	// Its special tokens are those of its model.
	expect(page.session.turns[0]!.run.replyText()).toBe("Good");
	expect(page.session.fillingOf(page.session.turns[0]!.run)).toEqual({ kind: "never" });
});

test("a reload after the change still knows what is no text in a reply of the model before", async () => {
	await open({ model: modelInfo({ special_ids: [8] }) });
	await reply();
	await page.say(finishedFrame(), engineFrame({ ...offers, state: "ready", model: OTHER, vectors: [] }));
	keep(sessionStorage, page.session.turns, null);
	const kept = findKept(sessionStorage)!;
	await page.close();
	page = new SteeringPage();
	await page.show();
	await act(async () => page.session.restore(kept));
	await page.open(welcomeFrame({ ...offers, model: OTHER, change_model: true }));
	await page.say(
		{ ...startedFrame(["Hello", "?"], "x"), model: "tiny" },
		tokensFrame(2, ["Good", "<end>"], [7, 8]),
		finishedFrame(),
	);
	const { run } = page.session.turns[0]!;
	expect([run.tokens.ids, run.replyText(), run.model]).toEqual([[7, 8], "Good", "tiny"]);
	expect(page.text("written-by")).toBe("Written by tiny");
});

test("a change that failed is told to everybody", async () => {
	await open();
	await page.say(engineFrame({ ...offers, state: "loading", model: offers.model, vectors: [joy] }));
	await page.say(engineFrame({ ...offers, state: "ready", stage: "Ready", model: offers.model }));
	const stage = "org/other could not be served. It is broken. tiny is served again.";
	await page.say(engineFrame({ ...offers, state: "ready", stage, model: offers.model }));
	expect(page.text("notice-banner")).toContain(stage);
});

test("sizes and endings are said as people say them", () => {
	expect(sizeText(here({ parameters: 8.03e9, size_bytes: 16 * 2 ** 30, layers: 32 }))).toBe(
		"8.0 billion parameters, 32 layers, 16.0 GiB",
	);
	expect(sizeText(here({ parameters: 82_000, size_bytes: 2 ** 20 }))).toBe(
		"82,000 parameters, 2 layers, 1 MiB",
	);
	expect(endsText(0)).toBe("No reply is being written now.");
	expect(endsText(1)).toContain("It ends.");
});
