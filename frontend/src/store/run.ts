// One run: its tokens and numbers, and what these mean: the model and adapter that wrote it, its prompt and sampling, how
// it was steered from where on, and how it ended. How it stands to this page is beside it (`Delivered`).
//
// Frames go in through `take`, which gives each to the store that keeps its kind (tokens, rows, guesses, missing rows);
// everything else reads. Events may come twice and rows late or never: the stores are kept by position, so nothing
// doubles, and what contradicts itself fails the run with a sentence.
import type {
	Alternatives,
	Applied,
	ErrorCode,
	Finished,
	Gap,
	Lens,
	MetricInfo,
	ModelInfo,
	Part,
	Queued,
	Resumed,
	Rows,
	RunNotice,
	Sampling,
	ServerFrame,
	Start,
	Started,
	Tokens,
	Watched,
} from "../protocol/types.gen";
import { AlternativeStore } from "./alternatives";
import { Delivered } from "./delivered";
import { GuessStore } from "./guesses";
import { Missing, type Stretch } from "./missing";
import type { RunPhase } from "./phase";
import { RowStore } from "./rows";
import { type FrameBatch, pageBatch, Signal } from "./signal";
import { Speed } from "./speed";
import type { Marks } from "./thought";
import { type TextFacts, TokenStore } from "./tokens";

/** Positions of a run where no model says how long its texts may be. */
const LONGEST = 2 ** 20;

export type RunFrame =
	| Started
	| Resumed
	| Queued
	| Part
	| Tokens
	| Rows
	| Lens
	| Alternatives
	| Watched
	| Applied
	| Gap
	| Finished;
/** All that a start or a steer frame says of steering. */
export type Steered = Required<Pick<Start, "strengths" | "settings">>;

export function isRunFrame(frame: ServerFrame): frame is RunFrame {
	return "run" in frame && frame.type !== "error";
}

/** One state of what steers a run. */
export interface Revision {
	rev: number;
	/** Of the first row that was computed with it. */
	position: number;
	/** Null where the server did not say. */
	steered: Steered | null;
}

/** What a run is watched with, from a position on. */
export interface Watching extends Required<Pick<Start, "lens" | "entropy" | "alternatives">> {
	from: number;
	metrics: readonly string[];
}

/** Of a run that somebody else asked for it is not known at first. */
const NOT_ASKED = { lens: null, entropy: false, alternatives: 0 };

export interface RunOptions {
	/** When `start` was sent, on the clock that `take` is given; null where this page did not see the reply begin. */
	sentAt: number | null;
	/** Strengths, and how their vectors act, sent as revision 0. */
	steered?: Steered;
	/** Other than "starting" for a reply that somebody else asked for, or that a reload left. */
	phase?: RunPhase;
	batch?: FrameBatch;
}

export class Run {
	readonly changed: Signal;
	readonly tokens = new TokenStore();
	readonly rows = new RowStore();
	/** How it stands to this page, and what of it is still to come. */
	readonly delivery: Delivered;
	/**
	 * Positions without a row that the engine did not compute for this run, because it had their keys and values in its
	 * cache, or that were not asked for, because the turns in front have theirs.
	 */
	readonly cached = new Missing();
	/** What asked for it. A notebook's prompt is a text that goes on, without messages. */
	#origin: RunNotice["origin"] = "chat";
	/** As it was asked for from this page; null where somebody else did. */
	asked: Start | null = null;
	/** A person wants the conversation in front of this turn as this run has read it, and not as it was written. */
	reread = false;
	guesses = new GuessStore();
	alternatives = new AlternativeStore();
	readonly steered: Steered;
	/** The server's name; null until `started`. */
	name: string | null = null;
	/** Id of the model that writes it; null where that is not known. */
	model: string | null = null;
	/** The LoRA adapter that it is written with; null is the base model, undefined until it is known. */
	adapter: string | null | undefined = undefined;
	/** Names of the edits that act in it. */
	edits: readonly string[] = [];
	/** What the run is watched with now; null until `started`. */
	metrics: readonly string[] | null = null;
	/** What it was watched with from which position on; empty until `started`. */
	readonly watched: Watching[] = [];
	/** What blocks of Python in it compute, in the order in which they came: metrics that no server lists. */
	readonly live: MetricInfo[] = [];
	/** How its tokens are drawn; null where that is not known. */
	sampling: Sampling | null = null;
	/** What the chat template was told; empty where this page did not ask. */
	template: NonNullable<Start["template"]> = {};
	/** Strengths and settings of revision 0; null where that is not known. */
	began: Steered | null = null;
	/** Revisions after the first that are in force. */
	readonly applied: Revision[] = [];
	finished: Finished | null = null;
	problem: { code: ErrorCode | "lost"; message: string } | null = null;
	readonly #speed: Speed;
	/** As many positions as the model's texts may have: what lies beyond cannot be, and gets no memory. */
	#longest = LONGEST;

	/** `id` is the page's own name of the run, sent in `start`. */
	constructor(
		readonly id: string,
		{ sentAt, steered = { strengths: {}, settings: {} }, phase = "starting", batch = pageBatch }: RunOptions,
	) {
		this.changed = new Signal(batch);
		this.steered = steered;
		this.delivery = new Delivered(phase);
		this.#speed = new Speed(sentAt);
	}

	/** The server says which model writes this run. */
	know(model: (TextFacts & Pick<ModelInfo, "max_model_len">) | null): void {
		this.tokens.know(model);
		this.#longest = model?.max_model_len ?? LONGEST;
	}

	get origin(): RunNotice["origin"] {
		return this.#origin;
	}

	set origin(origin: RunNotice["origin"]) {
		this.#origin = origin;
		this.tokens.raw = origin === "notebook";
	}

	/** Take one frame of this run, at a moment of the clock of `sentAt`. */
	take(frame: RunFrame, now: number): void {
		this.delivery.seq = Math.max(this.delivery.seq, frame.seq);
		try {
			const end = endOf(frame);
			if (end > this.#longest) {
				throw new Error(
					`The server spoke of position ${end - 1}, and this model's texts end at ${this.#longest - 1}.`,
				);
			}
			this.#store(frame, now);
		} catch (error) {
			this.fail("internal", (error as Error).message);
		}
		this.changed.changed();
	}

	#store(frame: RunFrame, now: number): void {
		switch (frame.type) {
			case "started":
				this.name = frame.run;
				this.tokens.prompt = frame.prompt;
				// An older server does not say.
				this.origin = frame.origin ?? "chat";
				this.#watch(0, { ...NOT_ASKED, ...this.asked, metrics: frame.metrics });
				this.model = frame.model || null;
				this.adapter = frame.adapter ?? null;
				this.edits = frame.edits ?? [];
				this.sampling = frame.sampling ?? this.sampling;
				this.began = steeredIn(frame) ?? this.began;
				this.delivery.on("started");
				break;
			case "resumed":
				this.delivery.on("resumed");
				break;
			case "queued":
				this.delivery.queued = frame.position === 0 ? null : frame.position;
				break;
			case "part":
				this.tokens.part(frame);
				break;
			case "tokens":
				this.#takeTokens(frame, now);
				break;
			case "rows":
				this.rows.append(frame);
				this.delivery.missing.remove(frame.start, frame.count);
				this.cached.remove(frame.start, frame.count);
				break;
			case "lens":
				this.guesses.append(frame);
				break;
			case "alternatives":
				this.alternatives.append(frame);
				break;
			case "watched":
				// Said again by a server, a change says the same; one before the first row takes the place of what was asked.
				this.#forgetWatching(frame.position);
				this.#watch(frame.position, frame);
				this.#know(frame);
				break;
			case "applied":
				if (this.applied.some(({ rev }) => rev === frame.rev)) break;
				this.applied.push({ rev: frame.rev, position: frame.position, steered: steeredIn(frame) });
				break;
			case "gap":
				this.#takeGap(frame);
				break;
			case "finished":
				this.#takeFinished(frame);
				break;
		}
	}

	#forgetWatching(from: number): void {
		const at = this.watched.findIndex((one) => one.from === from);
		if (at >= 0) this.watched.splice(at, 1);
	}

	/** An older server says nothing of a run's own metrics. One that is known stays the same object. */
	#know({ live = [] }: Partial<Pick<Watched, "live">>): void {
		for (const metric of live) if (!this.live.some(({ id }) => id === metric.id)) this.live.push(metric);
	}

	/** It is watched with this from a position on, unless that is known. */
	#watch(from: number, { metrics, lens, entropy, alternatives }: Omit<Watching, "from">): void {
		if (this.watched.some((one) => one.from === from)) return;
		this.watched.push({ from, metrics, lens, entropy, alternatives });
		this.watched.sort((one, other) => one.from - other.from);
		this.metrics = this.watched.at(-1)!.metrics;
	}

	#takeTokens(frame: Tokens, now: number): void {
		if (this.delivery.complete || this.tokens.append(frame) === 0) return;
		this.delivery.queued = null;
		this.#speed.tokens(now);
		const { remembered } = this.delivery;
		if (remembered !== null && this.tokens.written(null).length >= remembered.length) {
			this.delivery.remembered = null;
		}
	}

	/**
	 * Rows that another run has computed, of the same tokens steered alike: those that this one's engine had in its
	 * cache are taken.
	 */
	fill(frame: Rows): void {
		for (const stretch of [...this.cached.within(frame)]) {
			this.rows.append(cut(frame, stretch));
			this.cached.remove(stretch.start, stretch.count);
		}
		this.changed.changed();
	}

	#takeGap({ start, count, kept, cached }: Gap): void {
		if (!kept) this.delivery.missing.remove(start, count);
		const into = kept ? this.delivery.missing : cached ? this.cached : null;
		if (into === null) return;
		// The same gap may be told twice, and its rows may have been brought in between.
		for (let from = start; from < start + count; from++) {
			let to = from;
			while (to < start + count && !this.rows.has(to)) to++;
			if (to > from) into.add(from, to - from);
			from = to;
		}
	}

	#takeFinished(frame: Finished): void {
		this.finished = frame;
		this.delivery.end();
		this.delivery.on(frame.reason === "error" ? "failed" : "finished");
		if (frame.error !== null) this.problem = frame.error;
	}

	/** The server said that this run failed, or the page found that it cannot be right. */
	fail(code: ErrorCode, message: string): void {
		this.problem = { code, message };
		this.delivery.on("failed");
		this.changed.changed();
	}

	/** The line to the run went down; a live run goes on being written for a while. */
	leave(): void {
		if (this.delivery.on("left")) this.changed.changed();
	}

	/** A live run cannot be had any more; the sentence says why. */
	lose(message: string): void {
		if (!this.delivery.on("lost")) return;
		this.delivery.queued = null;
		this.problem = { code: "lost", message };
		this.changed.changed();
	}

	/** The numbers of a remembered reply cannot be had; the sentence says why. */
	giveUp(message: string): void {
		this.delivery.gone = message;
		this.changed.changed();
	}

	/** Nothing but the text and its marks is wanted any more. */
	dropNumbers(): void {
		this.rows.dropNumbers();
		this.guesses = new GuessStore();
		this.alternatives = new AlternativeStore();
	}

	/** The reply as it is read. */
	replyText(): string {
		return this.delivery.remembered ?? this.tokens.replyText(this.finished?.stop ?? null);
	}

	/** The reply as it goes on: as it is read, and with all that stands around its thought. */
	written(): string {
		return this.delivery.remembered ?? this.tokens.written(this.finished?.stop ?? null);
	}

	/** What stands around the thought of the reply; null where it has none. */
	get marks(): Marks | null {
		return this.delivery.remembered !== null ? this.delivery.rememberedMarks : this.tokens.marks;
	}

	/** Nats of the distribution from which the token at a position was drawn: the row before tells it. */
	entropyBefore(position: number): number | null {
		return position < this.tokens.promptLength ? null : this.rows.entropy(position - 1);
	}

	/** Whether rows of a metric have come or may still come. Unknown, so true, until `started`. */
	watches(metric: string): boolean {
		return this.metrics === null || this.metrics.includes(metric) || this.rows.carries(metric);
	}

	/** Milliseconds to the first token: the server's number once there is one, the page's before. */
	firstTokenMs(): number | null {
		return this.finished !== null ? this.finished.timing.first_token_ms : this.#speed.firstTokenMs();
	}

	/** As with `firstTokenMs`: tokens of the reply after its first, over the time after the first. */
	tokensPerSecond(): number | null {
		return this.finished !== null
			? this.finished.timing.tokens_per_s
			: this.#speed.tokensPerSecond(this.tokens.ids.length);
	}
}

function steeredIn({ strengths, settings }: Started | Applied): Steered | null {
	// An older server sends neither.
	return strengths == null ? null : { strengths, settings: settings ?? {} };
}

/** A part of a frame of rows, without their entropies. */
function cut(frame: Rows, { start, count }: Stretch): Rows {
	const from = start - frame.start;
	const bytes = 2 * frame.metrics.length * frame.layers;
	return {
		...frame,
		start,
		count,
		revs: frame.revs.slice(from, from + count),
		data: frame.data.subarray(from * bytes, (from + count) * bytes),
		entropy: null,
	};
}

/** One past the last position that a frame speaks of. */
function endOf(frame: RunFrame): number {
	switch (frame.type) {
		case "rows":
		case "lens":
		case "alternatives":
		case "gap":
			return frame.start + frame.count;
		case "tokens":
			return frame.start + frame.ids.length;
		case "applied":
		case "watched":
			return frame.position + 1;
		case "part":
			return frame.start;
		default:
			return 0;
	}
}
