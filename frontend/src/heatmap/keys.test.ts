import { expect, test } from "vitest";
import { connectionWords } from "../session/StatusBar";
import { RunState } from "../store/run";
import { manualBatch, metricInfo, rowsFrame, startedFrame } from "../testing";
import { moved } from "./Heatmap";
import { cursorSentence } from "./Tooltip";

test("keys move the cursor by a cell and never out of the map", () => {
	const from = { position: 5, layer: 2 };
	expect(moved("ArrowLeft", from, 10, 4, 6)).toEqual({ position: 4, layer: 2 });
	expect(moved("ArrowUp", from, 10, 4, 6)).toEqual({ position: 5, layer: 3 });
	expect(moved("ArrowDown", { position: 5, layer: 0 }, 10, 4, 6)).toEqual({ position: 5, layer: 0 });
	expect(moved("PageDown", from, 10, 4, 6)).toEqual({ position: 9, layer: 2 });
	expect(moved("Home", from, 10, 4, 6)).toEqual({ position: 0, layer: 2 });
	expect(moved("End", from, 10, 4, 6)).toEqual({ position: 9, layer: 2 });
	expect(moved("ArrowLeft", null, 10, 4, 6)).toEqual({ position: 9, layer: 0 });
	expect(moved("Escape", from, 10, 4, 6)).toBeNull();
	expect(moved("Escape", null, 10, 4, 6)).toBeUndefined();
	expect(moved("x", from, 10, 4, 6)).toBeUndefined();
});

test("the cursor is told as a sentence", () => {
	const run = new RunState("c1", 0, new Set(), {}, manualBatch());
	run.take(startedFrame(["a", " b"]), 0);
	run.take(rowsFrame(0, 1, { value: () => 3 }), 0);
	const metric = metricInfo({ label: "Residual norm", transform: "log2", unit: "L2" });
	const by = "keys" as const;
	expect(cursorSentence(run, metric, { run: "c1", position: 0, layer: 1, by })).toBe(
		'Token 0 of the prompt, "a", layer 1: Residual norm 8 L2, revision 0.',
	);
	expect(cursorSentence(run, metric, { run: "c1", position: 1, layer: 1, by })).toBe(
		'Token 1 of the prompt, " b": no row yet.',
	);
});

test("the connection is told in words", () => {
	expect(connectionWords({ kind: "live" }, 0)).toBe("Live");
	expect(connectionWords({ kind: "reconnecting", attempt: 1, retryAt: 4200, why: "" }, 1000)).toBe(
		"Reconnecting in 4 s",
	);
	expect(connectionWords({ kind: "given-up", reason: "unauthorized", message: "No." }, 0)).toBe("No.");
});
