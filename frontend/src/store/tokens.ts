// The tokens of one run by position, prompt and reply: ids, texts, and how likely each token of the reply was when
// it was drawn. A frame that comes twice or overlaps adds only what is new, and one that would leave a hole is
// refused: the text behind it would be shifted.
import type { ModelInfo, Part, Prompt, Tokens } from "../protocol/types.gen";
import type { Marks } from "./thought";

/** The facts about a model that decide how its tokens read. */
export type TextFacts = Pick<ModelInfo, "special_ids" | "chat" | "thoughts">;

export class TokenStore {
	prompt: Prompt = { ids: [], texts: [], spans: [] };
	/** Of the reply, as are the three lists that follow: one entry per token, the first at position `promptLength`. */
	readonly ids: number[] = [];
	readonly texts: string[] = [];
	/** Nats, at most 0; null where the server did not say. */
	readonly logprobs: (number | null)[] = [];
	/** 1 for the likeliest token; null where the server did not say. */
	readonly ranks: (number | null)[] = [];
	/** Ids of tokens that are not text, such as the one that ends a reply. */
	specialIds: ReadonlySet<number> = new Set();
	/** The prompt was given as a text, whatever the model could make of a chat. */
	raw = false;
	#continues = false;
	/** Positions at which the reply's thought and its answer begin; null as long as, or where, there is none. */
	thought: number | null = null;
	answer: number | null = null;
	#marks: Marks | null = null;

	know(model: TextFacts | null): void {
		this.#marks = model?.thoughts ?? null;
		this.specialIds = new Set(model?.special_ids);
		this.#continues = model?.chat === "none";
	}

	/** Prompt and reply are one text: the model has no chat template, or the prompt was not made by it. */
	get continues(): boolean {
		return this.raw || this.#continues;
	}

	/** Ids that occur here and are no text, each once. */
	special(): number[] {
		const all = new Set([...this.prompt.ids, ...this.ids]);
		const found = [...this.specialIds].filter((id) => all.has(id));
		// Of a reply whose tokens have not come again after a reload: as they were kept.
		return all.size === 0 ? [...this.specialIds] : found;
	}

	get promptLength(): number {
		return this.prompt.ids.length;
	}

	/** Tokens of prompt and reply together. */
	get length(): number {
		return this.prompt.ids.length + this.ids.length;
	}

	/** Take one tokens frame. Returns how many tokens were new; throws a sentence when some before it never came. */
	append(frame: Tokens): number {
		const next = this.length;
		const known = next - frame.start;
		if (known < 0) {
			throw new Error(`Tokens ${next} to ${frame.start - 1} never arrived, so the text would be wrong.`);
		}
		for (let i = known; i < frame.ids.length; i++) {
			this.ids.push(frame.ids[i]!);
			this.texts.push(frame.texts[i] ?? "");
			this.logprobs.push(frame.logprobs[i] ?? null);
			this.ranks.push(frame.ranks[i] ?? null);
		}
		return Math.max(0, frame.ids.length - known);
	}

	/** Take a part frame. */
	part({ part, start }: Part): void {
		if (part === "thought") this.thought ??= start;
		if (part === "answer") this.answer ??= start;
	}

	/** What stands around the thought of this reply; null where it has none. */
	get marks(): Marks | null {
		return this.thought === null ? null : this.#marks;
	}

	/** How many tokens of the reply stand before its answer: those of the thought, with its marks. */
	get unanswered(): number {
		if (this.thought === null) return 0;
		return this.answer === null ? Number.POSITIVE_INFINITY : Math.max(0, this.answer - this.promptLength);
	}

	/** Text of the token at a position, as the tokenizer gives it. */
	textAt(position: number): string | undefined {
		return position < this.promptLength
			? this.prompt.texts[position]
			: this.texts[position - this.promptLength];
	}

	idAt(position: number): number | undefined {
		return position < this.promptLength ? this.prompt.ids[position] : this.ids[position - this.promptLength];
	}

	isSpecial(position: number): boolean {
		const id = this.idAt(position);
		return id !== undefined && this.specialIds.has(id);
	}

	/** How surprising the token at a position was, in nats; null in the prompt and when not known. */
	surprisal(position: number): number | null {
		const logprob = this.logprobs[position - this.promptLength] ?? null;
		return logprob === null ? null : Math.max(0, -logprob);
	}

	/** Place of the token at a position among all that could have stood there; null as with `surprisal`. */
	rank(position: number): number | null {
		return this.ranks[position - this.promptLength] ?? null;
	}

	/** What the person reads of reply token `index` (0 is the first of the reply), before any cut at a stop string. */
	visibleText(index: number): string {
		return this.specialIds.has(this.ids[index]!) ? "" : (this.texts[index] ?? "");
	}

	/**
	 * The reply's tokens that are marks around its thought and nothing else: the first so many, and from one on up to
	 * the answer, as far as it has been written.
	 */
	markTokens(): { first: number; from: number } {
		if (this.thought === null) return { first: 0, from: Number.POSITIVE_INFINITY };
		const first = this.thought - this.promptLength;
		const { unanswered, marks } = this;
		let from = Number.POSITIVE_INFINITY;
		if (marks !== null && unanswered <= this.ids.length) {
			const before = this.texts.slice(0, unanswered);
			const mark = before.join("").lastIndexOf(marks.end);
			let at = 0;
			from = before.findIndex((text) => {
				const here = at;
				at += text.length;
				return text !== "" && here >= mark;
			});
			if (mark < 0 || from < 0) from = Number.POSITIVE_INFINITY;
		}
		return { first, from };
	}

	/** As `replyText`, and with all special tokens before the answer: what the reply goes on from. */
	written(stop: string | null): string {
		if (this.marks === null) return this.replyText(stop);
		const { ids, texts, unanswered } = this;
		let last = ids.length;
		while (last > 0 && this.specialIds.has(ids[last - 1]!)) last--;
		const before = Math.min(unanswered, last);
		const pieces = ids.map((_, index) => (index < before ? texts[index] : this.visibleText(index)));
		return cutAt(pieces.join(""), stop);
	}

	/** The reply as it is read and as it goes into the next prompt: no special tokens, cut at the stop string. */
	replyText(stop: string | null): string {
		return cutAt(this.ids.map((_, index) => this.visibleText(index)).join(""), stop);
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
		return [...prompt, ...this.#replyParts(split, end)].filter((part) => part.start < part.end);
	}

	#replyParts(split: number, end: number): { name: string; start: number; end: number }[] {
		if (this.thought === null)
			return [{ name: this.continues ? "continuation" : "reply", start: split, end }];
		const answer = Math.min(end, this.answer ?? end);
		return [
			{ name: "thought", start: split, end: answer },
			{ name: "answer", start: answer, end },
		];
	}
}

function cutAt(text: string, stop: string | null): string {
	const end = stop ? text.indexOf(stop) : -1;
	return end < 0 ? text : text.slice(0, end);
}
