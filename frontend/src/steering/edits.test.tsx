// @vitest-environment happy-dom
// Edits in the whole page: listed, switched on for the next reply, and removed for everybody.
import { afterEach, beforeEach, expect, test } from "vitest";
import type { EditInfo } from "../protocol/types.gen";
import { finishedFrame, startedFrame } from "../testing";
import { welcomeFrame } from "../testing/frames";
import { offers, SteeringPage } from "../testing/steeringPage";

let page: SteeringPage;
beforeEach(() => {
	page = new SteeringPage();
});
afterEach(() => page.close());

const edit = (name: string, changes: Partial<EditInfo> = {}): EditInfo => ({
	id: `id-${name}`,
	name,
	since: 0,
	bytes: 9,
	runs: 0,
	error: null,
	...changes,
});
const open = (...edits: EditInfo[]) => page.open(welcomeFrame({ ...offers, edits }));
const say = (...edits: EditInfo[]) => page.say({ type: "edits", edits });

test("nothing is shown where there are none, and nothing is asked for", async () => {
	await open();
	expect(page.find("edits")).toBeNull();
	await page.ask();
	expect("edits" in page.starts[0]!).toBe(false);
});

test("a switch acts on the next reply; one under way keeps what it began with", async () => {
	await open(edit("calm"), edit("loud", { runs: 2 }));
	expect(
		[...page.host.querySelectorAll('[data-testid="edit-status"]')].map((one) => one.textContent),
	).toEqual(["not used yet", "used 2 times"]);
	await page.click("edit-switch");
	expect(page.text("edit-status")).toBe("from the next reply on");
	await page.ask();
	expect(page.starts[0]!.edits).toEqual(["calm"]);
	await page.say({ ...startedFrame(["p"]), edits: ["calm"] });
	expect([page.text("edit-status"), page.text("edits-of")]).toEqual(["acts in this reply", "Edited by calm"]);
	await page.click("edit-switch");
	expect(page.text("edit-status")).toBe("acts to the end of this reply");
	await page.say(finishedFrame());
	await page.ask("And now?");
	expect("edits" in page.starts[1]!).toBe(false);
});

test("what it raised is said", async () => {
	await open(edit("calm"));
	expect(page.find("edit-error")).toBeNull();
	await say(edit("calm", { runs: 1, error: "ValueError: No layer 99." }));
	expect(page.text("edit-error")).toBe("It failed last with ValueError: No layer 99.");
});

test("is removed for everybody, when that was meant", async () => {
	page.answers["DELETE api/edits/id-calm"] = null;
	await open(edit("calm"));
	await page.click("edit-switch");
	await page.click("edit-remove");
	expect(page.asked).toEqual([]);
	expect(page.spoken()).toContain("It goes for everybody on this server.");
	await page.click("edit-remove-sure");
	expect(page.asked.map(({ method, path }) => `${method} ${path}`)).toEqual(["DELETE api/edits/id-calm"]);
	await say();
	expect(page.find("edits")).toBeNull();
	expect(page.host.textContent).toContain("The edit calm is no longer on this server");
	await page.ask();
	expect("edits" in page.starts[0]!).toBe(false);
});

test("why it could not be removed is said, and it stays", async () => {
	page.answers["DELETE api/edits/id-calm"] = { error: "There is no edit 'id-calm'." };
	await open(edit("calm"));
	await page.click("edit-remove");
	await page.click("edit-remove-sure");
	expect(page.find("edits")!.textContent).toContain("There is no edit 'id-calm'.");
	expect(page.find("edit-remove")).not.toBeNull();
});

test("a cell that is run again puts another in its place, which is on as the one before was", async () => {
	await open(edit("calm"));
	await page.click("edit-switch");
	await say(edit("calm", { id: "other", since: 5 }));
	await page.ask();
	expect(page.starts[0]!.edits).toEqual(["calm"]);
});
