// `meta.json` of a recording: its turns and what each of its runs was. What comes out of `readMeta` has been checked
// field by field and does not contradict itself; whether it fits the arrays is checked where those are read.
import type {
	LensOptions,
	MetricInfo,
	ModelInfo,
	Sampling,
	Span,
	VectorInfo,
	VectorSetting,
} from "../protocol/types.gen";
import type { Run } from "../store/run";
import { fields, list, mapOf, maybe, number, orNull, otherwise, pair, text, truth, whole } from "./checks";
import {
	type Ending,
	ending,
	lensOptions,
	metricInfo,
	modelInfo,
	type Problem,
	problem,
	sampling,
	span,
	templateValue,
	vectorInfo,
	vectorSetting,
} from "./described";
import { RecordingError } from "./error";

export const FORMAT = "steersight-recording";
export const VERSION = 1;
/** Of what a page lays out or draws one by one, or compares each with each. */
const MOST = { turns: 2_000, before: 64, infos: 4_096, spans: 4_096, revisions: 16_384, watched: 1_024 };

export interface RecordedTurn {
	id: string;
	/** The turn that this one follows; null for the first. */
	parent: string | null;
	user: string;
	/** Indices of the runs that wrote the beginning of the reply. */
	before: number[];
	run: number;
}

export interface Revision {
	rev: number;
	/** Of the first row that was computed with it. */
	position: number;
	/** Null where whoever recorded the run did not know them. */
	strengths: { [vector: string]: number } | null;
	settings: { [vector: string]: VectorSetting };
}

export interface Watched {
	from: number;
	metrics: string[];
	lens: LensOptions | null;
	entropy: boolean;
	alternatives: number;
}

export interface RunMeta {
	name: string | null;
	server: string;
	epoch: string | null;
	model: ModelInfo | null;
	adapter: string | null;
	origin: Run["origin"];
	/** Names of the edits that acted in it. */
	edits: string[];
	metrics: MetricInfo[];
	vectors: VectorInfo[];
	sampling: Sampling | null;
	template: { [name: string]: boolean | number | string };
	prompt: { tokens: number; spans: Span[] };
	revisions: Revision[];
	watched: Watched[];
	parts: { thought: number | null; answer: number | null };
	cached: [start: number, count: number][];
	finished: Ending | null;
	problem: Problem | null;
	/** The reply as it was read, where whoever recorded it had no tokens of it; null where the tokens are here. */
	remembered: string | null;
}

export interface Meta {
	format: typeof FORMAT;
	version: typeof VERSION;
	made_by: string;
	/** UTC, as ISO 8601 writes it. */
	made_at: string;
	title: string;
	turns: RecordedTurn[];
	runs: RunMeta[];
}

const turn = fields<RecordedTurn>({
	id: text,
	parent: orNull(text),
	user: text,
	before: list(whole, MOST.before),
	run: whole,
});

const revision = fields<Revision>({
	rev: whole,
	position: whole,
	strengths: maybe(mapOf(number)),
	settings: otherwise({}, mapOf(vectorSetting)),
});

const watched = fields<Watched>({
	from: whole,
	metrics: list(text, MOST.infos),
	lens: maybe(lensOptions),
	entropy: otherwise(false, truth),
	alternatives: otherwise(0, whole),
});

const run = fields<RunMeta>({
	name: maybe(text),
	server: otherwise("", text),
	epoch: maybe(text),
	model: maybe(modelInfo),
	adapter: maybe(text),
	origin: otherwise("chat", (value, where) => (text(value, where) === "notebook" ? "notebook" : "chat")),
	edits: otherwise([], list(text, MOST.infos)),
	metrics: list(metricInfo, MOST.infos),
	vectors: otherwise([], list(vectorInfo, MOST.infos)),
	sampling: maybe(sampling),
	template: otherwise({}, mapOf(templateValue)),
	prompt: fields<RunMeta["prompt"]>({ tokens: whole, spans: list(span, MOST.spans) }),
	revisions: otherwise([], list(revision, MOST.revisions)),
	watched: otherwise([], list(watched, MOST.watched)),
	parts: otherwise(
		{ thought: null, answer: null },
		fields<RunMeta["parts"]>({ thought: maybe(whole), answer: maybe(whole) }),
	),
	cached: otherwise([], list(pair(whole))),
	finished: maybe(ending),
	problem: maybe(problem),
	remembered: maybe(text),
});

const meta = fields<Omit<Meta, "format" | "version">>({
	made_by: otherwise("", text),
	made_at: otherwise("", text),
	title: otherwise("", text),
	turns: list(turn, MOST.turns),
	runs: list(run),
});

const kind = fields<{ format: unknown; version: unknown }>({
	format: (value) => value,
	version: (value) => value,
});

export function readMeta(value: unknown): Meta {
	const { format, version } = kind(value, "");
	if (format !== FORMAT) {
		throw new RecordingError("meta.json: format says that this is no recording of Steersight.");
	}
	if (!Number.isSafeInteger(version) || (version as number) < 1) {
		throw new RecordingError("meta.json: version must be a whole number from 1 on.");
	}
	if (version !== VERSION) {
		throw new RecordingError(
			`This recording was made by a newer Steersight: version ${version}, this one reads ${VERSION}.`,
		);
	}
	const found = meta(value, "");
	checkTurns(found);
	found.runs.forEach((one, index) => {
		checkNames(one, index);
	});
	return { format, version, ...found };
}

function checkTurns({ turns, runs }: Pick<Meta, "turns" | "runs">): void {
	const byId = new Map<string, RecordedTurn>();
	for (const one of turns) {
		if (byId.has(one.id)) throw new RecordingError(`meta.json: two turns have the id ${quoted(one.id)}.`);
		byId.set(one.id, one);
		for (const index of [...one.before, one.run]) {
			if (index >= runs.length) {
				throw new RecordingError(
					`meta.json: turn ${quoted(one.id)} names run ${index}, and there are ${runs.length}.`,
				);
			}
		}
	}
	const rooted = new Set<string>();
	for (const one of turns) {
		const way = new Set<string>();
		for (let at: RecordedTurn = one; !rooted.has(at.id); ) {
			if (way.has(at.id)) throw new RecordingError(`meta.json: turn ${quoted(at.id)} follows itself.`);
			way.add(at.id);
			if (at.parent === null) break;
			const parent = byId.get(at.parent);
			if (parent === undefined) {
				throw new RecordingError(`meta.json: turn ${quoted(at.id)} follows a turn that is not there.`);
			}
			at = parent;
		}
		for (const id of way) rooted.add(id);
	}
}

function checkNames({ metrics, vectors }: RunMeta, index: number): void {
	for (const [what, infos] of [
		["metric", metrics],
		["vector", vectors],
	] as const) {
		const found = new Set<string>();
		for (const { id } of infos) {
			if (found.has(id)) {
				throw new RecordingError(`meta.json: runs[${index}] has the ${what} ${quoted(id)} twice.`);
			}
			found.add(id);
		}
	}
}

/** A name from a file in a sentence: short, and on one line. */
function quoted(name: string): string {
	return JSON.stringify(name.length > 40 ? `${name.slice(0, 40)}…` : name);
}
