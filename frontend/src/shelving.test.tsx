// @vitest-environment happy-dom
// A conversation whose numbers are too many for the page's memory: those of earlier replies lie on disk, and come back
// when their map is shown.
import { act } from "react";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
	finishedFrame,
	gapFrame,
	metricInfo,
	modelInfo,
	rowsFrame,
	startedFrame,
	tokensFrame,
	welcomeFrame,
} from "./testing";
import { MemoryDisk } from "./testing/disk";
import { settings } from "./testing/lab";
import { afterwards, TestPage } from "./testing/page";

let disk: MemoryDisk;
let page: TestPage;
beforeEach(async () => {
	disk = new MemoryDisk();
	page = new TestPage(afterwards, undefined, { disk, budget: 2000 });
	await page.open(welcomeFrame({ model: modelInfo(), metrics: [metricInfo({ label: "Norm" })] }));
});
afterEach(() => page.close());

const settled = () => act(async () => void (await new Promise((done) => setTimeout(done))));

/** No turn begins with the tokens of another: each has a map of its own. */
function startedWith(of: number, run: string) {
	const started = startedFrame(["p", "q"], page.starts.at(-1)!.id, run);
	return { ...started, prompt: { ...started.prompt, ids: [10 * of, 10 * of + 1] } };
}

/** A question with its whole reply, whose numbers are `of` and more. */
async function turn(of: number, { cached = 0 } = {}): Promise<void> {
	const run = `r${of}`;
	await page.ask(`Question ${of}`);
	await page.say(
		startedWith(of, run),
		...(cached > 0 ? [{ ...gapFrame(0, cached, { cached: true }), run }] : []),
		{ ...rowsFrame(cached, 3 - cached, { value: (p) => 10 * of + p }), run },
		tokensFrame(2, ["A", "B"], undefined, run),
		finishedFrame({ run }),
	);
	await settled();
}

const states = () => page.session.turns.map(({ run }) => run.rows.state);
const runOf = (index: number) => page.session.turns[index]!.run;

test("an earlier reply's numbers leave; shown again, the map says that they are fetched until they are there", async () => {
	await turn(1);
	expect(states()).toEqual(["here"]);
	await turn(2);
	expect([states(), page.find("heatmap-shelved")]).toEqual([["shelved", "here"], null]);
	let open = () => {};
	disk.before = (asked) =>
		asked.startsWith("read") ? new Promise<void>((done) => (open = done)) : undefined;
	await act(async () => page.session.show(runOf(0)));
	expect(page.text("heatmap-shelved")).toBe("Fetching the numbers of this reply");
	await act(async () => page.session.cursor.set({ run: runOf(0).id, position: 1, layer: 0, by: "keys" }));
	expect(page.text("heatmap-sentence")).toContain("Norm being fetched");
	await act(async () => open());
	await settled();
	expect([page.find("heatmap-shelved"), runOf(0).rows.value("norm", 1, 0)]).toEqual([null, 11]);
	expect(states()).toEqual(["here", "shelved"]);
});

test("a step back that shows another reply fetches it too", async () => {
	await turn(1);
	await turn(2);
	await act(async () => page.session.show(runOf(0)));
	await settled();
	expect(states()).toEqual(["here", "shelved"]);
	await act(async () => void page.session.history.undo());
	await settled();
	expect([page.session.shown, states()]).toEqual([runOf(1), ["shelved", "here"]]);
});

test("a reply whose rows are computed after all stays while they come, and has them", async () => {
	await turn(1, { cached: 1 });
	await act(async () => page.session.fill(runOf(0)));
	await page.say(startedWith(1, "r9"));
	await page.ask("Another");
	await settled();
	expect(states()).toEqual(["here", "here"]);
	await page.say({ ...rowsFrame(0, 1, { value: () => 7 }), run: "r9" }, finishedFrame({ run: "r9" }));
	await settled();
	expect([states()[0], runOf(0).rows.has(0)]).toEqual(["shelved", true]);
	await act(async () => page.session.show(runOf(0)));
	await settled();
	expect([0, 1].map((position) => runOf(0).rows.value("norm", position, 0))).toEqual([7, 11]);
});

test("a regeneration that is refused puts the reply back, and its numbers are still on disk", async () => {
	await turn(1);
	await turn(2);
	await act(async () => page.session.show(runOf(0)));
	await settled();
	const old = runOf(1);
	expect(old.rows.state).toBe("shelved");
	await act(async () => void page.session.regenerate(settings));
	await settled();
	expect(runOf(1)).not.toBe(old);
	await act(async () => page.server.refuse(page.starts.at(-1)!.id));
	await act(async () => page.session.show(old));
	await settled();
	expect([runOf(1), old.delivery.gone, old.rows.value("norm", 1, 0)]).toEqual([old, null, 21]);
});

test("a new chat leaves nothing on disk", async () => {
	await turn(1);
	await turn(2);
	expect(disk.names).toEqual(["1/0"]);
	await act(async () => page.session.newChat());
	await settled();
	expect(disk.names).toEqual([]);
});
