// One reply being written: prompt, tokens, rows, what was applied, how it ended. Frames go in through
// `take`; everything else reads. Tokens are kept by position, so a frame that comes twice adds nothing, and
// a frame that would leave a hole is refused with a sentence instead of shifting the text.
import type {
	Applied,
	ErrorCode,
	Finished,
	Gap,
	Lens,
	Prompt,
	Rows,
	ServerFrame,
	Started,
	Tokens,
} from "../protocol/types.gen";
import type { Steered } from "../steering/sender";
import { GuessStore } from "./guesses";
import { RowStore } from "./rows";
import { type FrameBatch, pageBatch, Signal } from "./signal";

export type RunStatus = "starting" | "streaming" | "done" | "failed" | "lost";
export type RunFrame = Started | Tokens | Rows | Lens | Applied | Gap | Finished;

export function isRunFrame(frame: ServerFrame): frame is RunFrame {
	return "run" in frame && frame.type !== "error";
}

export class RunState {
	readonly changed: Signal;
	readonly rows = new RowStore();
	readonly guesses = new GuessStore();
	/** The server's name; null until `started`. */
	run: string | null = null;
	status: RunStatus = "starting";
	prompt: Prompt = { ids: [], texts: [], spans: [] };
	ids: number[] = [];
	texts: string[] = [];
	logprobs: (number | null)[] = [];
	ranks: (number | null)[] = [];
	/** What the run is watched with; null until `started`. */
	metrics: readonly string[] | null = null;
	applied: { rev: number; position: number }[] = [];
	gaps: { start: number; count: number }[] = [];
	finished: Finished | null = null;
	problem: { code: ErrorCode | "lost"; message: string } | null = null;
	/** Milliseconds on the page's clock. */
	firstTokenAt: number | null = null;
	lastTokenAt: number | null = null;

	/** `id` is the page's own name, sent in `start`; `sentAt` is on the clock that `take` is given. */
	constructor(
		readonly id: string,
		readonly sentAt: number,
		private readonly specialIds: ReadonlySet<number>,
		/** Strengths, and how their vectors act, sent as revision 0. */
		readonly steered: Steered = { strengths: {}, settings: {} },
		batch: FrameBatch = pageBatch,
	) {
		this.changed = new Signal(batch);
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
		switch (frame.type) {
			case "started":
				this.run = frame.run;
				this.prompt = frame.prompt;
				this.metrics = frame.metrics;
				if (this.status === "starting") this.status = "streaming";
				break;
			case "tokens":
				this.#takeTokens(frame, now);
				break;
			case "rows":
			case "lens":
				try {
					if (frame.type === "rows") this.rows.append(frame);
					else this.guesses.append(frame);
				} catch (error) {
					this.fail("internal", (error as Error).message);
				}
				break;
			case "applied":
				this.applied.push({ rev: frame.rev, position: frame.position });
				break;
			case "gap":
				this.gaps.push({ start: frame.start, count: frame.count });
				break;
			case "finished":
				this.finished = frame;
				if (this.live) this.status = frame.reason === "error" ? "failed" : "done";
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
		if (known >= frame.ids.length) return;
		this.firstTokenAt ??= now;
		this.lastTokenAt = now;
		for (let i = known; i < frame.ids.length; i++) {
			this.ids.push(frame.ids[i]!);
			this.texts.push(frame.texts[i] ?? "");
			this.logprobs.push(frame.logprobs[i] ?? null);
			this.ranks.push(frame.ranks[i] ?? null);
		}
	}

	/** The server said that this run failed, or the page found that it cannot be right. */
	fail(code: ErrorCode, message: string): void {
		this.problem = { code, message };
		if (this.live) this.status = "failed";
		this.changed.changed();
	}

	/** The connection went away under a live run. */
	lose(): void {
		if (!this.live) return;
		this.status = "lost";
		this.problem = {
			code: "lost",
			message: "The connection was lost while this reply was being written. What had arrived is kept.",
		};
		this.changed.changed();
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
		const text = this.ids.map((_, index) => this.visibleText(index)).join("");
		const stop = this.finished?.stop;
		const end = stop ? text.indexOf(stop) : -1;
		return end < 0 ? text : text.slice(0, end);
	}

	/** Milliseconds to the first token: the server's number once there is one, the page's before. */
	firstTokenMs(): number | null {
		if (this.finished !== null) return this.finished.timing.first_token_ms;
		return this.firstTokenAt === null ? null : this.firstTokenAt - this.sentAt;
	}

	/** Reply tokens after the first over the time after the first. */
	tokensPerSecond(): number | null {
		if (this.finished !== null) return this.finished.timing.tokens_per_s;
		if (this.firstTokenAt === null || this.lastTokenAt === null) return null;
		const seconds = (this.lastTokenAt - this.firstTokenAt) / 1000;
		return seconds > 0 && this.ids.length > 1 ? (this.ids.length - 1) / seconds : null;
	}
}
