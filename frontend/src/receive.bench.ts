// What one frame of a reply costs the page, from its bytes to the coloured column of the map, without a browser.
// A frame brings one token and one row of 3 metrics x 32 layers, as at 60 tokens a second; half-way through a
// reply of 1024 tokens, because whatever grows with the reply must show here. Run with `npx vitest bench`.
import { encode } from "@msgpack/msgpack";
import { bench, describe } from "vitest";
import { Backing, type Tile } from "./heatmap/backing";
import { SEQUENTIAL } from "./heatmap/colour";
import { ScaleFit } from "./heatmap/scale";
import { decodeFrame } from "./protocol/codec";
import type { ServerFrame } from "./protocol/types.gen";
import { DamageMeter } from "./steering/live";
import { isRunFrame, type RunState } from "./store/run";
import { chance, metricInfo, rowsFrame, startedFrame, testRun, tokensFrame } from "./testing";

const TOKENS = 1024;
const LAYERS = 32;
const METRICS = ["norm", "cosine", "mlp_norm"];
const metric = metricInfo();

const random = chance(7);
const bytes: Uint8Array[] = [];
for (let p = 0; p < TOKENS; p++) {
	bytes.push(encode(tokensFrame(1 + p, [` word${p % 97}`])));
	// Numbers of an ordinary reply: most within a band, one in a hundred far out.
	const value = () => 5 + random() + (random() < 0.01 ? 4 * random() : 0);
	bytes.push(encode(rowsFrame(p, 1, { layers: LAYERS, metrics: METRICS, value, entropy: () => 1.5 })));
}
const frames = bytes.map((one) => decodeFrame(one)!);

const tile: Tile = {
	context: {
		createImageData: (width, height) =>
			({ width, height, data: new Uint8ClampedArray(4 * width * height) }) as ImageData,
		putImageData: () => {},
		clearRect: () => {},
	},
	image: {} as CanvasImageSource,
};

function begin(): RunState {
	const run = testRun();
	run.take(startedFrame(["p"]), 0);
	return run;
}

/** Everything that happens for each token of a whole reply, in turn. */
function reply(each: (run: RunState, tokens: ServerFrame, rows: ServerFrame) => void, run = begin()): void {
	for (let i = 0; i < frames.length; i += 2) each(run, frames[i]!, frames[i + 1]!);
}

function take(run: RunState, ...given: ServerFrame[]): void {
	for (const frame of given) if (isRunFrame(frame)) run.take(frame, 0);
}

describe(`a reply of ${TOKENS} tokens: divide by ${TOKENS} for one token`, () => {
	bench("bytes to frames", () => {
		for (const one of bytes) decodeFrame(one);
	});
	bench("frames to the store", () => reply(take));
	bench("store, scale and colours", () => {
		const fit = new ScaleFit(metric);
		const backing = new Backing(LAYERS, () => tile);
		reply((run, tokens, rows) => {
			take(run, tokens, rows);
			const range = fit.update(run.rows);
			backing.paint(run.rows, { metric, range, table: SEQUENTIAL }, run.rows.columns - 1, run.rows.columns);
		});
	});
	bench("store and the signs of a breaking reply", () => {
		const meter = new DamageMeter();
		reply((run, tokens, rows) => {
			take(run, tokens, rows);
			meter.read(run);
		});
	});
});
