// @vitest-environment happy-dom
// A notebook's run in the whole page: the list, the text, and what the composer says of it.
import { afterEach, beforeEach, expect, test } from "vitest";
import type { NotebookRuns, RunNotice } from "../protocol/types.gen";
import { finishedFrame, resumedFrame, startedFrame, tokensFrame } from "../testing";
import { welcomeFrame } from "../testing/frames";
import { offers, SteeringPage } from "../testing/steeringPage";

let page: SteeringPage;
beforeEach(() => {
	page = new SteeringPage();
	return page.ready();
});
afterEach(() => page.close());

function notebook(state: RunNotice["state"] = "writing"): NotebookRuns {
	const run: RunNotice = { run: "n1", origin: "notebook", prompt: "The\n Tower", since: 0, state };
	return { type: "notebook_runs", runs: [run] };
}
const started = { ...startedFrame(["The", " Tower"], "t1", "n1"), origin: "notebook" as const };

test("nothing is shown where there are none", () => {
	expect(page.find("from-notebook")).toBeNull();
});

test("a run is listed with its beginning and a mark, and opens with one click", async () => {
	await page.fill("prompt-input", "Wha");
	await page.say(notebook());
	const entry = page.find("notebook-run")!;
	expect([entry.dataset.state, entry.getAttribute("aria-current")]).toEqual(["writing", null]);
	expect(entry.textContent).toBe("The Towerbeing written");
	expect(entry.getAttribute("href")).toBe("#watch=n1");
	await page.click("notebook-run");
	await page.say(resumedFrame({ run: "n1" }), started, tokensFrame(2, [" is"], undefined, "n1"));
	expect([page.text("from"), page.text("message-user")]).toEqual(["From a notebook", "The Tower"]);
	expect(page.find("message-assistant")!.textContent).toContain("The Tower is");
	expect(page.find("notebook-run")!.getAttribute("aria-current")).toBe("true");
	expect(page.host.querySelector(".composer-hint")!.textContent).toContain("text is being written");
	expect([page.find("stop") !== null, page.find("regenerate")]).toEqual([true, null]);
	await page.say(finishedFrame({ run: "n1" }), notebook("finished"));
	expect(page.host.querySelector(".composer-hint")!.textContent).toContain("what you send begins a chat");
	expect([page.find("regenerate"), page.find("notebook-run")!.dataset.state]).toEqual([null, "finished"]);
	expect(page.text("notebook-back")).toBe("Close");
	await page.click("notebook-back");
	expect([page.find("message-assistant"), page.find("notebook-back")]).toEqual([null, null]);
	expect(page.value("prompt-input")).toBe("Wha");
});

test("an idle page shows it, and a chat asked from there knows nothing of it", async () => {
	await page.say(notebook(), resumedFrame({ run: "n1" }), started, finishedFrame({ run: "n1" }));
	expect(page.text("from")).toBe("From a notebook");
	await page.ask("Hello?");
	expect(page.starts[0]!.messages).toEqual([{ role: "user", content: "Hello?" }]);
	expect(page.text("message-user")).toBe("Hello?");
});

test("a model without a chat template continues both alike", async () => {
	await page.say(welcomeFrame({ ...offers, model: { ...offers.model, chat: "none" } }), notebook());
	await page.say(resumedFrame({ run: "n1" }), started, tokensFrame(2, [" is"], undefined, "n1"));
	expect(page.find("message-assistant")!.textContent).toContain("The Tower is");
});
