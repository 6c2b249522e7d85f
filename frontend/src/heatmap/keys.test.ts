import { expect, test } from "vitest";
import { connectionWords } from "../session/StatusBar";
import { lensFrame, metricInfo, rowsFrame, startedFrame, testRun, tokensFrame } from "../testing";
import { moved } from "./keys";
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
	const run = testRun();
	run.take(startedFrame(["a", " b"]), 0);
	run.take(rowsFrame(0, 1, { value: () => 3 }), 0);
	const metric = metricInfo({ label: "Residual norm", transform: "log2", unit: "L2" });
	const by = "keys" as const;
	expect(cursorSentence(run, metric, { run: "c1", position: 0, layer: 1, by })).toBe(
		'Token 0 of the prompt, reading "a", next " b", layer 1: Residual norm 8 L2, revision 0.',
	);
	expect(cursorSentence(run, metric, { run: "c1", position: 1, layer: 1, by })).toBe(
		'Token 1 of the prompt, reading " b": no row yet.',
	);
});

test("of a reply token is told how it was drawn, and what the logit lens guessed after it", () => {
	const run = testRun();
	run.take(startedFrame(["a", " b"]), 0);
	run.take({ ...tokensFrame(2, ["c"]), logprobs: [-0.25], ranks: [1] }, 0);
	run.take(rowsFrame(0, 3, { value: (p) => (p === 2 ? Number.NaN : 3), entropy: () => 1.5 }), 0);
	run.take(lensFrame(2, 1, { texts: { 210: "d" } }), 0);
	const metric = metricInfo({ label: "Logit lens" });
	expect(cursorSentence(run, metric, { run: "c1", position: 2, layer: 1, by: "keys" })).toBe(
		'Token 2 of the reply, reading "c", surprisal 0.25 nats, rank 1, drawn at entropy 1.5 nats, layer 1: ' +
			'Logit lens not computed here, revision 0. Raw logit lens, next token: "d" 50.0 %, "" 25.0 %.',
	);
	const other = metricInfo({ id: "other", label: "Other" });
	expect(cursorSentence(run, other, { run: "c1", position: 1, layer: 0, by: "keys" })).toBe(
		'Token 1 of the prompt, reading " b", writing "c", layer 0: Other not computed here, revision 0.',
	);
});

test("the connection is told in words", () => {
	expect(connectionWords({ kind: "live" }, 0)).toBe("Live");
	expect(connectionWords({ kind: "reconnecting", attempt: 1, retryAt: 4200, why: "" }, 1000)).toBe(
		"Reconnecting in 4 s",
	);
	const givenUp = { kind: "given-up", message: "No." } as const;
	expect(connectionWords({ ...givenUp, reason: "unreachable" }, 0)).toBe("No.");
	expect(connectionWords({ ...givenUp, reason: "unauthorized" }, 0)).toBe("A token is needed");
});
