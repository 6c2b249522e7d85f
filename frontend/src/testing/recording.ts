// A small recording with everything that one can have: a thought, guesses, alternatives, a hole of rows that the
// engine had in its cache, a second run that wrote on. Used by tests, and by what makes the golden file.
import type { VectorSetting } from "../protocol/types.gen";
import type { Meta, RunMeta } from "../recording/meta";
import { type Recording, type RunArrays, toTexts } from "../recording/recording";
import { halfBits, metricInfo, modelInfo, vectorInfo } from "./frames";

const REPLY_ONLY: VectorSetting = {
	operator: null,
	lo: null,
	hi: null,
	scope: "reply",
	first: null,
	layers: null,
};

export function runMeta(changes: Partial<RunMeta> = {}): RunMeta {
	return {
		name: "run-1",
		server: "lab",
		epoch: "e1",
		model: modelInfo({ special_ids: [7], thoughts: { start: "<think>", end: "</think>" } }),
		adapter: null,
		origin: "chat",
		edits: [],
		metrics: [metricInfo(), metricInfo({ id: "projection:joy", family: "projection" })],
		vectors: [vectorInfo()],
		sampling: { max_tokens: 8, temperature: 0, stop: ["."] },
		template: { enable_thinking: true },
		prompt: { tokens: 3, spans: [{ role: "user", start: 0, end: 3 }] },
		revisions: [
			{ rev: 0, position: 0, strengths: {}, settings: {} },
			{ rev: 1, position: 4, strengths: { joy: 0.5 }, settings: { joy: REPLY_ONLY } },
		],
		watched: [
			{
				from: 0,
				metrics: ["norm", "projection:joy"],
				lens: { stride: 1, top: 2 },
				entropy: true,
				alternatives: 2,
			},
		],
		parts: { thought: 3, answer: 5 },
		cached: [[0, 1]],
		finished: {
			reason: "stop",
			stop: null,
			error: null,
			usage: { prompt_tokens: 3, reply_tokens: 4, cached_tokens: 1 },
			timing: { first_token_ms: 12.5, total_ms: 80, tokens_per_s: 50 },
		},
		problem: null,
		remembered: null,
		...changes,
	};
}

/** 3 tokens of prompt, 4 of reply, 2 layers; no row at position 0, and none of the last token yet. */
export function runArrays(changes: Partial<RunArrays> = {}): RunArrays {
	const columns = 6;
	const numbers = (value: (position: number, layer: number) => number) =>
		Uint16Array.from({ length: columns * 2 }, (_, at) => {
			const position = Math.floor(at / 2);
			return position === 0 ? 0x7e00 : halfBits(value(position, at % 2));
		});
	return {
		tokens: Int32Array.of(1, 2, 3, 4, 5, 6, 7),
		texts: toTexts(["Say", " he", "llo", "<think>", "Ü</think>", "Hello 🌍", ""]),
		logprobs: Float32Array.of(-0.5, -0.25, Number.NaN, 0),
		ranks: Int32Array.of(1, 2, 0, 1),
		revisions: Int32Array.of(-1, 0, 0, 0, 1, 1),
		layers: 2,
		rows: new Map([
			["norm", numbers((position, layer) => position + layer / 4)],
			["projection:joy", numbers((position, layer) => (layer - 0.5) * position)],
		]),
		entropy: Uint16Array.from([Number.NaN, 1, 2, 0.5, 0.25, 4], (value) =>
			Number.isNaN(value) ? 0x7e00 : halfBits(value),
		),
		lens: {
			positions: Int32Array.of(2, 3, 5),
			layers: Int32Array.of(0, 1),
			top: 2,
			ids: Int32Array.of(4, 5, 4, 6, 5, 4, 5, 6, 7, 6, 7, 5),
			probabilities: Uint16Array.from([0.5, 0.25, 0.75, 0.125, 0.5, 0.25, 0.5, 0.25, 1, 0, 1, 0], halfBits),
		},
		alternatives: {
			positions: Int32Array.of(2, 3),
			top: 2,
			ids: Int32Array.of(4, 5, 5, 6),
			logprobs: Float32Array.of(-0.5, -1, -0.25, -2),
		},
		names: { ids: Int32Array.of(4, 5, 6, 7), texts: toTexts(["<think>", "Ü</think>", "Hello 🌍", ""]) },
		...changes,
	};
}

/** A run of one token, of which nothing else is known. */
export function bareRun(): { meta: RunMeta; arrays: RunArrays } {
	const meta = runMeta({
		name: null,
		epoch: null,
		model: null,
		metrics: [],
		vectors: [],
		sampling: null,
		template: {},
		prompt: { tokens: 1, spans: [] },
		revisions: [],
		watched: [],
		parts: { thought: null, answer: null },
		cached: [],
		finished: null,
		problem: { code: "lost", message: "The line went down." },
	});
	const arrays: RunArrays = {
		tokens: Int32Array.of(1),
		texts: toTexts(["Say"]),
		logprobs: new Float32Array(0),
		ranks: new Int32Array(0),
		revisions: new Int32Array(0),
		layers: 0,
		rows: new Map(),
		entropy: null,
		lens: null,
		alternatives: null,
		names: null,
	};
	return { meta, arrays };
}

export function testMeta(changes: Partial<Meta> = {}): Meta {
	return {
		format: "steersight-recording",
		version: 1,
		made_by: "steersight test",
		made_at: "2026-11-26T12:00:00Z",
		title: "Say hello 🌍",
		turns: [
			{ id: "c1", parent: null, user: "Say hello 🌍", before: [], run: 0 },
			{ id: "c2", parent: "c1", user: "Again", before: [], run: 1 },
		],
		runs: [runMeta(), bareRun().meta],
		...changes,
	};
}

export function testRecording(changes: Partial<Meta> = {}): Recording {
	return { meta: testMeta(changes), runs: [runArrays(), bareRun().arrays] };
}
