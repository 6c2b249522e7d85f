import { beforeEach, describe, expect, test } from "vitest";
import { MOST_METRICS } from "../session/watch";
import type { Run } from "../store/run";
import { metricInfo, rowsFrame, startedFrame, testRun, tokensFrame, vectorInfo } from "../testing";
import { DamageMeter, projectionNow, SHARE, shareNow, watchSteering } from "./live";
import { OWN_WAY } from "./setting";

const joy = vectorInfo({ layers: [0, 1] });
const watched = { metrics: ["norm"], lens: null, entropy: false };
const metrics = ["norm", SHARE, "projection:joy", "projection_before:joy", "projection:french"].map((id) =>
	metricInfo({ id }),
);

let run: Run;
beforeEach(() => {
	run = testRun({ special: [7] });
	run.take(startedFrame(["a", "b"]), 0);
});

describe("what a steered start asks for", () => {
	test("nothing more where there is nothing to steer with", () => {
		expect(watchSteering(watched, metrics, [], [])).toBe(watched);
	});

	test("what is not steered by yet too, after the rest and not without end", () => {
		expect(watchSteering(watched, metrics, [], ["joy"]).metrics).toContain("projection:joy");
		const offered = Array.from({ length: 20 }, (_, i) => `v${i}`);
		const listed = offered.map((id) => ({ ...metrics[0]!, id: `projection:${id}` }));
		const wanted = watchSteering({ ...watched, metrics: [] }, listed, ["v15"], offered).metrics;
		expect(wanted?.slice(0, 2)).toEqual(["projection:v15", "projection:v0"]);
		expect(wanted).toHaveLength(8);
	});

	test("projections of what is steered by, the share, the entropy; only what the server has", () => {
		expect(watchSteering(watched, metrics, ["joy"], ["joy"])).toEqual({
			metrics: ["norm", SHARE, "projection:joy", "projection_before:joy"],
			lens: null,
			entropy: true,
		});
		const failed = metrics.map((metric) => ({ ...metric, error: metric.id === SHARE ? "odd" : null }));
		expect(watchSteering(watched, failed, ["pirate"], ["pirate"]).metrics).toEqual(["norm"]);
	});

	test("never twice, never more than a start may name, and these before others", () => {
		const many = Array.from({ length: MOST_METRICS }, (_, i) => `m${i}`);
		const wanted = watchSteering(
			{ ...watched, metrics: [...many.slice(1), "projection:joy"] },
			metrics,
			["joy"],
			["joy"],
		);
		expect(wanted.metrics?.length).toBe(MOST_METRICS);
		expect(new Set(wanted.metrics).size).toBe(MOST_METRICS);
		expect(wanted.metrics?.slice(-3)).toEqual([SHARE, "projection:joy", "projection_before:joy"]);
	});
});

describe("what is read from the newest row", () => {
	const value = (position: number, metric: number, layer: number) => position + metric / 4 + layer / 16;

	test("the projection at the last layer where the vector acts, and at the one it was sent to", () => {
		expect(projectionNow(run, joy, OWN_WAY)).toBeNull();
		run.take(rowsFrame(0, 3, { metrics: ["projection:joy", "projection_before:joy"], value }), 0);
		expect(projectionNow(run, joy, OWN_WAY)).toEqual({ after: 2.0625, before: 2.3125, layer: 1 });
		expect(projectionNow(run, joy, { layers: [0, 0] })).toEqual({ after: 2, before: 2.25, layer: 0 });
	});

	test("nothing when the run is not watched with it, or the layer has no number", () => {
		run.take(rowsFrame(0, 1, { value: () => Number.NaN, metrics: ["projection:joy"] }), 0);
		expect(projectionNow(run, joy, OWN_WAY)).toBeNull();
		expect(projectionNow(run, vectorInfo({ id: "french" }), OWN_WAY)).toBeNull();
		expect(shareNow(run)).toBeNull();
	});

	test("the share of every layer, 0 where there is no number", () => {
		run.take(
			rowsFrame(0, 2, { metrics: [SHARE], value: (_, __, layer) => (layer === 0 ? 0.25 : Number.NaN) }),
			0,
		);
		expect(shareNow(run)).toEqual([0.25, 0]);
	});

	test("nothing while the numbers lie on the shelf", () => {
		run.take(rowsFrame(0, 2, { metrics: [SHARE, "projection:joy"] }), 0);
		run.rows.shelve(0);
		expect([shareNow(run), projectionNow(run, joy, OWN_WAY)]).toEqual([null, null]);
	});
});

test("the meter reads the reply's end, without special tokens, and another run starts anew", () => {
	const meter = new DamageMeter();
	run.take(tokensFrame(2, Array(30).fill(" of the")), 0);
	expect(meter.read(run)).toMatchObject({ repetition: 0.9, broken: true });
	expect(meter.read(run)).toBe(meter.read(run));
	run.take(rowsFrame(0, 31, { entropy: () => 0.5 }), 0);
	expect(meter.read(run).entropy).toBe(0.5);
	const fresh =
		"the quick brown fox jumps over a lazy dog while seven cats sleep under one old pear tree today";
	run.take(
		tokensFrame(
			32,
			fresh.split(" ").map((word) => ` ${word}`),
		),
		0,
	);
	expect(meter.read(run).broken).toBe(false);
	const other = testRun({ id: "c2" });
	expect(meter.read(other)).toEqual({ repetition: null, entropy: null, broken: false });
});
