// How long the page takes to open and to save a recording of a long conversation: 80 layers x 8,192 positions x 20
// metrics. Half floats of noise, which pack as badly as rows do. `npx vitest bench src/recording`.
import { bench, describe } from "vitest";
import { chance, halfBits, metricInfo, modelInfo } from "../testing";
import { runArrays, runMeta, testMeta } from "../testing/recording";
import { readRecording } from "./read";
import { type Recording, toTexts } from "./recording";
import { writeRecording } from "./write";

const [LAYERS, POSITIONS, METRICS] = [80, 8192, 20];

function long(): Recording {
	const random = chance(7);
	const ids = Array.from({ length: METRICS }, (_, index) => `m${index}`);
	const row = () =>
		Uint16Array.from({ length: POSITIONS * LAYERS }, (_, at) => halfBits(1 + (at % LAYERS) + random()));
	const meta = runMeta({
		model: modelInfo({ layers: LAYERS, max_model_len: POSITIONS }),
		metrics: ids.map((id) => metricInfo({ id })),
	});
	const arrays = runArrays({
		tokens: new Int32Array(POSITIONS),
		texts: toTexts(Array.from({ length: POSITIONS }, (_, at) => ` word${at}`)),
		logprobs: new Float32Array(POSITIONS - 3),
		ranks: new Int32Array(POSITIONS - 3),
		revisions: new Int32Array(POSITIONS),
		layers: LAYERS,
		rows: new Map(ids.map((id) => [id, row()])),
		entropy: null,
		lens: null,
		alternatives: null,
		names: null,
	});
	return { meta: testMeta({ runs: [meta], turns: [] }), runs: [arrays] };
}

const recording = long();
const bytes = await writeRecording(recording);

describe(`${(bytes.length / 1e6).toFixed(1)} MB`, () => {
	bench("open", async () => void (await readRecording(bytes)), { iterations: 3, time: 0 });
	bench("save", async () => void (await writeRecording(recording)), { iterations: 3, time: 0 });
});
