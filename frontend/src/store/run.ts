// One reply being written: prompt, tokens, rows, what was applied, how it ended. Frames go in through
// `take`; everything else reads. Tokens are kept by position, so a frame that comes twice adds nothing, and
// a frame that would leave a hole is refused with a sentence instead of shifting the text.
//
// A run outlives its connection: while the line is down it is `away` and still live, and `seq` says from where
// on its events are wanted. After a reload its text is `remembered` until its tokens have come again.
import type {
	Applied,
	ErrorCode,
	Finished,
	Gap,
	Lens,
	ModelInfo,
	Prompt,
	Queued,
	Resumed,
	Rows,
	ServerFrame,
	Started,
	Tokens,
} from "../protocol/types.gen";
import type { Steered } from "../steering/sender";
import { GuessStore } from "./guesses";
import { Missing } from "./missing";
import { RowStore } from "./rows";
import { type FrameBatch, pageBatch, Signal } from "./signal";

/** Positions of a run where no model says how long its texts may be. */
const LONGEST = 2 ** 20;

export type RunStatus = "starting" | "streaming" | "done" | "failed" | "lost";
export type RunFrame = Started | Resumed | Queued | Tokens | Rows | Lens | Applied | Gap | Finished;

export function isRunFrame(frame: ServerFrame): frame is RunFrame {
	return "run" in frame && frame.type !== "error";
}

export class RunState {
	readonly changed: Signal;
	readonly rows = new RowStore();
	guesses = new GuessStore();
	/** The server's name; null until `started`. */
	run: string | null = null;
	/** The life of the server in which that name means this run. */
	epoch: string | null = null;
	/** Every event up to this one has been had. */
	seq = 0;
	status: RunStatus = "starting";
	/** Live, and out of reach: the line is down, or the server has not yet answered `resume`. */
	away = false;
	/** Its last event has come: nothing but skipped rows can follow. */
	complete = false;
	/** Place in the queue, 1 for the next to begin; null when it does not wait. */
	queued: number | null = null;
	/** The person wants its end; said again when the line is back. */
	stopAsked = false;
	/** The reply's text from before a reload, until its tokens have come again. */
	remembered: string | null = null;
	/** Why the numbers of a remembered reply cannot be had, as a sentence. */
	gone: string | null = null;
	/** As many positions as the model's texts may have: what lies beyond cannot be, and gets no memory. */
	longest = LONGEST;
	/** The model has no chat template: prompt and reply are one text. */
	continues = false;
	prompt: Prompt = { ids: [], texts: [], spans: [] };
	ids: number[] = [];
	texts: string[] = [];
	logprobs: (number | null)[] = [];
	ranks: (number | null)[] = [];
	/** What the run is watched with; null until `started`. */
	metrics: readonly string[] | null = null;
	applied: { rev: number; position: number }[] = [];
	/** Rows that were skipped and can be had. */
	readonly missing = new Missing();
	finished: Finished | null = null;
	problem: { code: ErrorCode | "lost"; message: string } | null = null;
	/** Milliseconds on the page's clock. */
	firstTokenAt: number | null = null;
	lastTokenAt: number | null = null;

	/**
	 * `id` is the page's own name, sent in `start`; `sentAt` is on the clock that `take` is given, or null where
	 * this page did not see the reply begin and so cannot measure it.
	 */
	constructor(
		readonly id: string,
		readonly sentAt: number | null,
		public specialIds: ReadonlySet<number>,
		/** Strengths, and how their vectors act, sent as revision 0. */
		readonly steered: Steered = { strengths: {}, settings: {} },
		batch: FrameBatch = pageBatch,
	) {
		this.changed = new Signal(batch);
	}

	/** What the served model says of every text: which tokens are special, how long it may be, what makes prompts. */
	know(model: Pick<ModelInfo, "special_ids" | "max_model_len" | "chat"> | null): void {
		this.specialIds = new Set(model?.special_ids);
		this.continues = model?.chat === "none";
		this.longest = model?.max_model_len ?? LONGEST;
	}

	/** Nothing but the text and its marks is wanted any more. */
	dropNumbers(): void {
		this.rows.dropNumbers();
		this.guesses = new GuessStore();
	}

	get live(): boolean {
		return this.status === "starting" || this.status === "streaming";
	}

	get promptLength(): number {
		return this.prompt.ids.length;
	}

	/** Tokens of prompt and reply together. */
	get length(): number {
		return this.prompt.ids.length + this.ids.length;
	}

	take(frame: RunFrame, now: number): void {
		this.seq = Math.max(this.seq, frame.seq);
		const end = endOf(frame);
		if (end > this.longest) {
			this.fail(
				"internal",
				`The server spoke of position ${end - 1}, and this model's texts end at ${this.longest - 1}.`,
			);
			return;
		}
		switch (frame.type) {
			case "started":
				this.run = frame.run;
				this.prompt = frame.prompt;
				this.metrics = frame.metrics;
				if (this.status === "starting") this.status = "streaming";
				break;
			case "resumed":
				this.away = false;
				break;
			case "queued":
				this.queued = frame.position === 0 ? null : frame.position;
				break;
			case "tokens":
				this.#takeTokens(frame, now);
				break;
			case "rows":
			case "lens":
				try {
					if (frame.type === "lens") this.guesses.append(frame);
					else {
						this.rows.append(frame);
						this.missing.remove(frame.start, frame.count);
					}
				} catch (error) {
					this.fail("internal", (error as Error).message);
				}
				break;
			case "applied":
				if (this.applied.some(({ rev }) => rev === frame.rev)) break;
				this.applied.push({ rev: frame.rev, position: frame.position });
				break;
			case "gap":
				this.#takeGap(frame);
				break;
			case "finished":
				this.#takeFinished(frame);
				break;
		}
		this.changed.changed();
	}

	#takeTokens(frame: Tokens, now: number): void {
		const next = this.length;
		const known = next - frame.start;
		if (known < 0) {
			this.fail(
				"internal",
				`Tokens ${next} to ${frame.start - 1} never arrived, so the text would be wrong.`,
			);
			return;
		}
		if (known >= frame.ids.length || this.complete) return;
		this.queued = null;
		this.firstTokenAt ??= now;
		this.lastTokenAt = now;
		for (let i = known; i < frame.ids.length; i++) {
			this.ids.push(frame.ids[i]!);
			this.texts.push(frame.texts[i] ?? "");
			this.logprobs.push(frame.logprobs[i] ?? null);
			this.ranks.push(frame.ranks[i] ?? null);
		}
		if (this.remembered !== null && this.#written().length >= this.remembered.length) this.remembered = null;
	}

	#takeGap({ start, count, kept }: Gap): void {
		if (!kept) {
			this.missing.remove(start, count);
			return;
		}
		// The same gap may be told twice, and its rows may have been brought in between.
		for (let from = start; from < start + count; from++) {
			let to = from;
			while (to < start + count && !this.rows.has(to)) to++;
			if (to > from) this.missing.add(from, to - from);
			from = to;
		}
	}

	#takeFinished(frame: Finished): void {
		this.finished = frame;
		this.complete = true;
		this.remembered = null;
		this.queued = null;
		if (this.live) this.status = frame.reason === "error" ? "failed" : "done";
		if (frame.error !== null) this.problem = frame.error;
	}

	/** The server said that this run failed, or the page found that it cannot be right. */
	fail(code: ErrorCode, message: string): void {
		this.problem = { code, message };
		if (this.live) this.status = "failed";
		this.changed.changed();
	}

	/** The line to a live run went down; the server goes on writing for a while. */
	leave(): void {
		if (!this.live) return;
		this.away = true;
		this.changed.changed();
	}

	/** A live run cannot be had any more; the sentence says why. */
	lose(message: string): void {
		if (!this.live) return;
		this.status = "lost";
		this.away = false;
		this.queued = null;
		this.problem = { code: "lost", message };
		this.changed.changed();
	}

	/** The numbers of a remembered reply cannot be had; the sentence says why. */
	giveUp(message: string): void {
		this.gone = message;
		this.changed.changed();
	}

	/** Who wrote which positions, by name: the messages of the prompt, and the reply. */
	parts(): { name: string; start: number; end: number }[] {
		const [split, end] = [this.promptLength, this.length];
		const whole = [{ name: this.continues ? "text" : "prompt", start: 0, end: split }];
		const { spans } = this.prompt;
		const prompt =
			this.continues || spans.length === 0
				? whole
				: spans.map(({ role, start, end }) => ({ name: role, start, end }));
		const reply = { name: this.continues ? "continuation" : "reply", start: split, end };
		return [...prompt, reply].filter((part) => part.start < part.end);
	}

	/** Text of the token at a position of prompt or reply, as the tokenizer gives it. */
	tokenText(position: number): string | undefined {
		return position < this.promptLength
			? this.prompt.texts[position]
			: this.texts[position - this.promptLength];
	}

	tokenId(position: number): number | undefined {
		return position < this.promptLength ? this.prompt.ids[position] : this.ids[position - this.promptLength];
	}

	/** How surprising the token at a position was, in nats; null in the prompt and when not known. */
	surprisal(position: number): number | null {
		const logprob = this.logprobs[position - this.promptLength] ?? null;
		return logprob === null ? null : Math.max(0, -logprob);
	}

	/** Place of the token at a position among all that could have stood there, 1 for the likeliest. */
	rank(position: number): number | null {
		return this.ranks[position - this.promptLength] ?? null;
	}

	/** Nats of the distribution from which the token at a position was drawn: the row before tells it. */
	entropyBefore(position: number): number | null {
		return position < this.promptLength ? null : this.rows.entropy(position - 1);
	}

	/** Whether rows of a metric have come or may still come. Unknown, so true, until `started`. */
	watches(metric: string): boolean {
		return this.metrics === null || this.metrics.includes(metric) || this.rows.values(metric) !== undefined;
	}

	isSpecial(position: number): boolean {
		const id = this.tokenId(position);
		return id !== undefined && this.specialIds.has(id);
	}

	/** What the person reads of reply token `index` (0 is the first of the reply), before any cut. */
	visibleText(index: number): string {
		return this.specialIds.has(this.ids[index]!) ? "" : (this.texts[index] ?? "");
	}

	/** The reply as it is read and as it goes into the next prompt: no special tokens, cut at the stop string. */
	replyText(): string {
		return this.remembered ?? this.#written();
	}

	#written(): string {
		const text = this.ids.map((_, index) => this.visibleText(index)).join("");
		const stop = this.finished?.stop;
		const end = stop ? text.indexOf(stop) : -1;
		return end < 0 ? text : text.slice(0, end);
	}

	/** Milliseconds to the first token: the server's number once there is one, the page's before. */
	firstTokenMs(): number | null {
		if (this.finished !== null) return this.finished.timing.first_token_ms;
		return this.firstTokenAt === null || this.sentAt === null ? null : this.firstTokenAt - this.sentAt;
	}

	/** Reply tokens after the first over the time after the first. */
	tokensPerSecond(): number | null {
		if (this.finished !== null) return this.finished.timing.tokens_per_s;
		if (this.firstTokenAt === null || this.lastTokenAt === null || this.sentAt === null) return null;
		const seconds = (this.lastTokenAt - this.firstTokenAt) / 1000;
		return seconds > 0 && this.ids.length > 1 ? (this.ids.length - 1) / seconds : null;
	}
}

/** One past the last position that a frame speaks of. */
function endOf(frame: RunFrame): number {
	switch (frame.type) {
		case "rows":
		case "lens":
		case "gap":
			return frame.start + frame.count;
		case "tokens":
			return frame.start + frame.ids.length;
		case "applied":
			return frame.position + 1;
		default:
			return 0;
	}
}
