// The conversation in the tab's own storage, so that a reload loses none of it: the texts at once, and the names
// by which the server still knows the runs, so that prompts, tokens and maps can be fetched again. What is found
// there is checked like any other input; what does not read right is left out.
import type { ErrorCode, Finished } from "../protocol/types.gen";
import { isLive, RUN_PHASES, type RunPhase } from "../store/phase";
import { Run } from "../store/run";
import type { FrameBatch } from "../store/signal";
import type { Marks } from "../store/thought";
import { type Turn, textOf } from "./conversation";
import { NO_MAP } from "./delivery";

const KEY = "steersight.conversation.v1";
/** Characters of the newest turns that are kept. Browsers give a page some five million. */
export const MOST_CHARACTERS = 1_500_000;

/** Whether a line was down when the page went says nothing about the next page. */
type KeptStatus = Exclude<RunPhase, "away">;

interface KeptRun {
	text: string;
	/** What stands around the thought in it; null where it has none. */
	marks: Marks | null;
	run: string | null;
	epoch: string | null;
	/** Id of the model that wrote it. */
	model: string | null;
	/** Those of its tokens that are no text: after a reload nobody may know that model any more. */
	special?: number[];
	status: KeptStatus;
	finished: Finished | null;
	problem: { code: ErrorCode | "lost"; message: string } | null;
	stopAsked: boolean;
	adapter?: string | null;
	origin?: Run["origin"];
}

interface KeptTurn {
	user: string;
	/** What earlier runs wrote of the reply. */
	before: string;
	beforeMarks: Marks | null;
	watched: boolean;
	run: KeptRun;
}

export interface Kept {
	turns: KeptTurn[];
	/** A question that was sent and not yet admitted: nobody knows whether the server took it. */
	asked: string | null;
	/** Whether older turns found no room. */
	cut: boolean;
}

export function keep(
	storage: Pick<Storage, "setItem" | "removeItem"> | null,
	turns: readonly Turn[],
	asked: string | null,
): void {
	const kept: string[] = [];
	let room = MOST_CHARACTERS;
	for (const turn of [...turns].reverse()) {
		const text = JSON.stringify(toKept(turn));
		room -= text.length;
		if (room < 0) break;
		kept.unshift(text);
	}
	try {
		if (turns.length === 0 && asked === null) storage?.removeItem(KEY);
		else {
			const cut = kept.length < turns.length;
			storage?.setItem(KEY, `{"turns":[${kept.join()}],"asked":${JSON.stringify(asked)},"cut":${cut}}`);
		}
	} catch {
		// Storage may be full or forbidden; the conversation then lasts as long as the page.
	}
}

/** Keeps a conversation when it has changed, and not with every measured ping. */
export class Keeper {
	#last: readonly unknown[] = [];

	constructor(
		private readonly storage: Pick<Storage, "setItem" | "removeItem"> | null,
		private readonly now: () => { turns: readonly Turn[]; asked: string | null },
	) {}

	look(): void {
		const { turns, asked } = this.now();
		const run = turns.at(-1)?.run;
		const seen = [
			turns,
			asked,
			run?.name,
			run?.delivery.phase,
			run?.delivery.complete,
			run?.delivery.stopAsked,
		];
		if (seen.every((one, index) => one === this.#last[index])) return;
		this.#last = seen;
		keep(this.storage, turns, asked);
	}

	keep(): void {
		const { turns, asked } = this.now();
		keep(this.storage, turns, asked);
	}
}

/** What a reload left of a conversation, or null. */
export function findKept(storage: Pick<Storage, "getItem"> | null): Kept | null {
	let found: unknown;
	try {
		found = JSON.parse(storage?.getItem(KEY) ?? "null");
	} catch {
		return null;
	}
	if (!isMap(found) || !Array.isArray(found.turns)) return null;
	const turns = found.turns.map(readTurn).filter((turn) => turn !== null);
	return { turns, asked: textOrNull(found.asked), cut: found.cut === true };
}

/** A run as it was, with nothing of it but its text. Only the last of a conversation can still be live. */
export function revive(kept: KeptRun, id: string, last: boolean, batch: FrameBatch): Run {
	const { status } = kept;
	const resumable = last && kept.run !== null;
	const phase = isLive(status) ? (resumable ? "away" : "lost") : status;
	const run = new Run(id, { sentAt: null, phase, batch });
	run.delivery.remembered = kept.text;
	run.delivery.rememberedMarks = kept.marks;
	run.name = kept.run;
	run.delivery.epoch = kept.epoch;
	run.model = kept.model;
	run.tokens.specialIds = new Set(kept.special);
	run.finished = kept.finished;
	run.problem = kept.problem;
	run.delivery.stopAsked = kept.stopAsked;
	run.adapter = kept.adapter;
	run.origin = kept.origin ?? "chat";
	if (run.name === null) run.delivery.gone = NO_MAP;
	return run;
}

/** Text that an earlier run wrote: it has no name any more, so nothing more comes of it. */
export function reviveText(text: string, id: string, batch: FrameBatch, marks: Marks | null = null): Run {
	const run = new Run(id, { sentAt: null, phase: "done", batch });
	run.delivery.remembered = text;
	run.delivery.rememberedMarks = marks;
	run.delivery.gone = NO_MAP;
	return run;
}

function toKept({ user, before, watched, run }: Turn): KeptTurn {
	const { name, model, finished, problem, adapter, origin } = run;
	const { epoch, phase, stopAsked } = run.delivery;
	const status = phase === "away" ? "streaming" : phase;
	return {
		user,
		before: textOf(before),
		beforeMarks: before.map((one) => one.marks).find((one) => one !== null) ?? null,
		watched,
		run: {
			text: run.written(),
			marks: run.marks,
			run: name,
			epoch,
			model,
			special: run.tokens.special(),
			status,
			finished,
			problem,
			stopAsked,
			adapter,
			origin,
		},
	};
}

const STATUSES = RUN_PHASES.filter((phase) => phase !== "away");
const REASONS = ["stop", "length", "cancelled", "error"];
/** As the server names runs. */
export const RUN_NAME = /^[A-Za-z0-9_.:-]{1,64}$/;

function readTurn(value: unknown): KeptTurn | null {
	if (!isMap(value) || !isMap(value.run)) return null;
	const { user, before, watched, run } = value;
	const status = STATUSES.find((one) => one === run.status);
	if (typeof user !== "string" || typeof run.text !== "string" || status === undefined) return null;
	const name = textOrNull(run.run);
	return {
		user,
		before: textOrNull(before) ?? "",
		beforeMarks: readMarks(value.beforeMarks),
		watched: watched === true,
		run: {
			text: run.text,
			marks: readMarks(run.marks),
			run: name !== null && RUN_NAME.test(name) ? name : null,
			epoch: textOrNull(run.epoch),
			model: textOrNull(run.model),
			special: Array.isArray(run.special) ? run.special.filter(Number.isInteger) : [],
			status,
			finished: readFinished(run.finished),
			problem: readProblem(run.problem),
			stopAsked: run.stopAsked === true,
			adapter: run.adapter === null || typeof run.adapter === "string" ? run.adapter : undefined,
			origin: run.origin === "notebook" ? "notebook" : "chat",
		},
	};
}

function readFinished(value: unknown): Finished | null {
	if (!isMap(value) || !isMap(value.usage) || !isMap(value.timing)) return null;
	const { usage, timing } = value;
	const whole =
		REASONS.includes(value.reason as string) &&
		typeof usage.reply_tokens === "number" &&
		[timing.first_token_ms, timing.tokens_per_s].every((one) => one === null || typeof one === "number");
	return whole ? ({ ...value, stop: textOrNull(value.stop) } as unknown as Finished) : null;
}

function readMarks(value: unknown): Marks | null {
	if (!isMap(value) || typeof value.start !== "string" || typeof value.end !== "string") return null;
	return value.end === "" ? null : { start: value.start, end: value.end };
}

function readProblem(value: unknown): KeptRun["problem"] {
	if (!isMap(value) || typeof value.message !== "string" || typeof value.code !== "string") return null;
	return { code: value.code as ErrorCode, message: value.message };
}

function isMap(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null;
}

function textOrNull(value: unknown): string | null {
	return typeof value === "string" ? value : null;
}
