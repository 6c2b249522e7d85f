// @vitest-environment happy-dom
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { CursorStore } from "../session/cursor";
import type { Session } from "../session/session";
import type { Run } from "../store/run";
import { FrameBatch, Signal } from "../store/signal";
import { lensFrame, metricInfo, rowsFrame, startedFrame, testRun, tokensFrame } from "../testing";
import { cursorSentence, Tooltip } from "./Tooltip";
import type { HeatmapView } from "./view";

let root: Root;
let host: HTMLElement;
let run: Run;
let cursor: CursorStore;

beforeEach(async () => {
	vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
	const batch = new FrameBatch((callback) => callback());
	run = testRun();
	run.take(startedFrame(["a", " b"]), 0);
	run.take({ ...tokensFrame(2, ["c", " d"], [60, 71]), logprobs: [-0.5, -2], ranks: [1, 1234] }, 0);
	run.take(
		rowsFrame(0, 3, { layers: 3, value: (_, __, l) => (l === 0 ? Number.NaN : 4), entropy: () => 1 }),
		0,
	);
	run.take(lensFrame(2, 1, { layers: [0, 2], top: 2, id: (_, l, i) => 70 + l + i, texts: { 71: " d" } }), 0);
	cursor = new CursorStore(batch);
	const session = { cursor, shown: run } as unknown as Session;
	const view = {
		moved: new Signal(batch),
		locate: () => ({ x: 9, y: 9, width: 5, height: 5 }),
	} as unknown as HeatmapView;
	host = document.createElement("div");
	document.body.append(host);
	root = createRoot(host);
	await act(async () => root.render(<Tooltip session={session} metric={metricInfo()} view={view} />));
});

afterEach(async () => {
	await act(async () => root.unmount());
	host.remove();
	vi.unstubAllGlobals();
});

const point = (position: number, layer: number | null) =>
	act(async () => cursor.set({ run: "c1", position, layer, by: "pointer" }));
const find = (id: string) => host.querySelector<HTMLElement>(`[data-testid="${id}"]`);
const fields = () => [...host.querySelectorAll("dt")].map((name) => name.textContent);

test("a reply token says how it was drawn, a prompt token does not", async () => {
	await point(3, 1);
	expect(find("tooltip-drawn")!.textContent).toBe("surprisal 2 nats, rank 1,234, drawn at entropy 1 nats");
	expect(fields()).toEqual(["token", "layer", "Norm", "revision"]);
	await point(1, 1);
	expect(find("tooltip-drawn")).toBeNull();
});

test("a token that the engine had in its cache is no row that is still to come", async () => {
	run.take({ type: "gap", run: "r1", seq: 1, start: 3, count: 1, kept: false, cached: true }, 0);
	await point(3, 1);
	expect([...host.querySelectorAll("dd")].map((value) => value.textContent)).toEqual([
		"3 reply",
		"1",
		"in the engine's cache",
		"not computed",
	]);
});

test("what was not computed is called so, and is not a number that is none", async () => {
	await point(2, 0);
	expect(find("heatmap-tooltip")!.textContent).toContain("not computed here");
	await point(2, 1);
	expect(find("heatmap-tooltip")!.textContent).not.toContain("not computed here");
});

test("the logit lens names its guesses and marks the token that was written", async () => {
	await point(2, 0);
	expect(find("tooltip-guesses")!.querySelector("p")!.textContent).toBe("raw logit lens: next token");
	const rows = () => [...find("tooltip-guesses")!.querySelectorAll("li")];
	expect(rows().map((row) => [row.className, row.textContent])).toEqual([
		["", "(part of a character)50.0 %"],
		["written", "\u00b7dwritten25.0 %"],
	]);
	await point(2, 2);
	expect(rows().some((row) => row.className === "written")).toBe(false);
	await point(2, 1);
	expect(find("tooltip-guesses")).toBeNull();
	await point(2, null);
	expect(find("tooltip-guesses")).toBeNull();
});

test("the experts of the pointed token are told, with their weights and what else they do", async () => {
	run.take(
		rowsFrame(0, 3, {
			layers: 3,
			metrics: ["expert:1", "expert_weight:1", "expert:2", "expert_weight:2"],
			value: (_, metric, layer) => (layer === 0 ? Number.NaN : [5, 0.75, 2, 0.25][metric]!),
		}),
		0,
	);
	await point(2, 0);
	expect(find("tooltip-experts")).toBeNull();
	await point(2, 1);
	const rows = [...find("tooltip-experts")!.querySelectorAll("li")];
	expect(rows.map((row) => [...row.children].map((cell) => cell.textContent))).toEqual([
		["5", "0.75", "100.0 %"],
		["2", "0.25", "100.0 %"],
	]);
	expect(cursorSentence(run, metricInfo(), { run: "c1", position: 2, layer: 1, by: "keys" })).toContain(
		" Experts: 5 with weight 0.75, 2 with weight 0.25.",
	);
});

test("a number on the shelf is being fetched, and one that is lost is no longer here", async () => {
	const value = () => find("heatmap-tooltip")!.querySelectorAll("dd")[2]!.textContent;
	const spoken = () => cursorSentence(run, metricInfo(), { run: "c1", position: 2, layer: 1, by: "keys" });
	run.rows.shelve(0);
	await point(2, 1);
	expect([value(), find("tooltip-drawn")!.textContent]).toEqual([
		"being fetched",
		"surprisal 0.5 nats, rank 1, drawn at entropy 1 nats",
	]);
	expect(spoken()).toContain("being fetched, revision 0.");
	run.rows.dropNumbers();
	run.giveUp("Lost.");
	await point(1, 1);
	expect(value()).toBe("no longer here");
});
