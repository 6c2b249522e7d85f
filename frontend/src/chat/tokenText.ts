// A reply's text as one span per token, written straight into the page. React renders the message once;
// after that each frame appends the spans of the new tokens and touches no other, however long the
// conversation is. Also marks where a revision came into force and lights the token under the cursor. After a
// reload the text that was kept stands alone, as one span, until the tokens have come again.
//
// A browser lays out all lines of a block again when one token is added to it. So the tokens stand in passages:
// whole lines of the text, each passage a block of its own. A token is only ever added to the last one, and the
// others keep their layout. A passage ends behind a line break and nowhere else, so none can be seen: text that
// is `white-space: pre-wrap` looks and copies the same whether a line break or a block's end divides two lines.
import { type LabelOf, revisionText } from "../store/revisionText";
import type { Run } from "../store/run";
import { parted } from "../store/thought";
import { ThoughtFold } from "./thoughtFold";

/** Tokens after which a passage ends at the next line break: few blocks, and none that is long. */
const PASSAGE_TOKENS = 64;
/** Tokens that are added at a time: a few milliseconds. More come at once from a recording, or to a page that was away. */
const MOST_TOKENS = 1024;

export class TokenText {
	/** One entry per reply token; null where nothing is shown (special tokens). */
	#spans: (HTMLSpanElement | null)[] = [];
	/** The passage that the next token goes into; null where it begins a new one. */
	#passage: HTMLSpanElement | null = null;
	#marked: readonly unknown[] = [];
	#markedCount = 0;
	/** Revisions whose changes were known when the marks were named. */
	#named = 0;
	#lit: HTMLSpanElement | null = null;
	#cut = false;
	#fold: ThoughtFold | null = null;
	/** Of the thought and of the answer, something has been shown that is not white space. */
	#thought = false;
	#answered = false;
	/** The mark behind the thought has been put away. */
	#ended = false;
	#remembered: HTMLSpanElement | null = null;

	constructor(
		private readonly root: HTMLElement,
		private readonly run: Run,
		private readonly labelOf: LabelOf = (id) => id,
	) {
		root.replaceChildren();
	}

	/**
	 * Bring the text up to date with the run. False when more came than one frame has time for: then it is to be called
	 * again.
	 */
	sync(): boolean {
		if (this.run.delivery.remembered !== null) {
			this.#remember(this.run.delivery.remembered);
			return true;
		}
		// A text that is there already is not taken away to come back in pieces.
		const most = this.#remembered === null ? MOST_TOKENS : Number.POSITIVE_INFINITY;
		if (this.#remembered !== null) {
			this.root.replaceChildren();
			this.#remembered = this.#fold = null;
		}
		this.#append(most);
		if (this.#spans.length < this.run.tokens.ids.length) return false;
		this.#syncFold();
		this.#markRevisions();
		if (this.run.finished?.stop && !this.#cut) this.#cutAtStop();
		return true;
	}

	/** Light the token at a position of prompt and reply; null lights none. */
	light(position: number | null): void {
		const span = position === null ? null : (this.#spans[position - this.run.tokens.promptLength] ?? null);
		if (span === this.#lit) return;
		this.#lit?.classList.remove("lit");
		span?.classList.add("lit");
		this.#lit = span;
	}

	#remember(text: string): void {
		if (this.#remembered !== null) return;
		const { thought, answer } = parted(text, this.run.delivery.rememberedMarks);
		if (thought !== null) {
			this.#fold = new ThoughtFold(this.root);
			this.#fold.say(null, false);
			this.#fold.text.append(thought);
		}
		this.#remembered = this.#element("remembered");
		this.#remembered.textContent = answer;
		this.root.append(this.#remembered);
	}

	#append(most: number): void {
		const { tokens } = this.run;
		const end = Math.min(tokens.ids.length, this.#spans.length + most);
		for (let index = this.#spans.length; index < end; index++) {
			const position = tokens.promptLength + index;
			if (tokens.isSpecial(position)) {
				this.#spans.push(null);
				continue;
			}
			const span = this.#element("token");
			span.dataset.position = String(position);
			span.textContent = tokens.visibleText(index);
			this.#spans.push(span);
			const thought = index < tokens.unanswered;
			if (thought) {
				this.#foldUp();
				this.#think(span, position);
			} else if (this.#fold !== null) this.#answer(span);
			this.#place(span, thought ? this.#fold!.text : this.root);
		}
	}

	/** Put what there is of the reply into a fold: it has turned out to be a thought. */
	#foldUp(): void {
		if (this.#fold !== null) return;
		const before = [...this.root.childNodes];
		this.#fold = new ThoughtFold(this.root);
		this.#fold.text.append(...before);
		const { first } = this.run.tokens.markTokens();
		for (const span of this.#spans.slice(0, first)) span?.classList.add("put-away");
	}

	/** The mark before the thought is not shown, nor is white space behind it. */
	#think(span: HTMLSpanElement, position: number): void {
		if (this.#thought) return;
		this.#thought = position >= this.run.tokens.thought! && span.textContent!.trim() !== "";
		if (!this.#thought) span.classList.add("put-away");
	}

	/** The first token of an answer begins a passage, and white space before its first word is not shown. */
	#answer(span: HTMLSpanElement): void {
		if (this.#answered) return;
		if (this.#passage?.parentElement === this.#fold!.text) this.#passage = null;
		this.#answered = span.textContent!.trim() !== "";
		if (!this.#answered) span.classList.add("put-away");
	}

	#syncFold(): void {
		const { tokens } = this.run;
		if (tokens.thought === null) return;
		this.#foldUp();
		const end = Math.min(tokens.unanswered, tokens.ids.length);
		const whole = tokens.ids.length >= tokens.unanswered;
		const goesOn = this.run.delivery.live && !whole;
		this.#fold!.say(Math.max(0, end - (tokens.thought - tokens.promptLength)), goesOn);
		if (this.#ended || !whole) return;
		this.#ended = true;
		const { from } = tokens.markTokens();
		for (const span of this.#spans.slice(Math.min(from, end), end)) span?.classList.add("put-away");
	}

	/**
	 * Put the next token behind the others. A token with more behind its line break (spaces that indent a line) ends
	 * no passage: half of it would have to stand in the next one.
	 */
	#place(span: HTMLSpanElement, into: HTMLElement): void {
		if (this.#passage === null) {
			this.#passage = this.#element("passage");
			into.append(this.#passage);
		}
		this.#passage.append(span);
		const full = this.#passage.childElementCount >= PASSAGE_TOKENS;
		if (full && span.textContent!.endsWith("\n")) this.#passage = null;
	}

	#element(name: string): HTMLSpanElement {
		const span = this.root.ownerDocument.createElement("span");
		span.className = name;
		return span;
	}

	#markRevisions(): void {
		const boundaries = this.run.rows.boundaries();
		// A row may come before it is told what its revision changed.
		if (this.run.applied.length !== this.#named) {
			this.#named = this.run.applied.length;
			for (const span of this.root.querySelectorAll<HTMLElement>(".token[data-rev]")) this.#name(span);
		}
		if (boundaries === this.#marked && boundaries.length === this.#markedCount) return;
		if (boundaries !== this.#marked) {
			// Late rows moved the boundaries: take all marks away and set them again.
			for (const span of this.root.querySelectorAll<HTMLElement>(".token[data-rev]")) delete span.dataset.rev;
			this.#markedCount = 0;
		}
		this.#marked = boundaries;
		for (; this.#markedCount < boundaries.length; this.#markedCount++) {
			const { rev, position } = boundaries[this.#markedCount]!;
			const span = this.#firstShown(position + 1);
			// A row can come before the text of the token that is drawn from it; the mark then waits.
			if (span === null) break;
			span.dataset.rev = String(rev);
			this.#name(span);
		}
	}

	/** Say at a mark what its revision changed. */
	#name(span: HTMLElement): void {
		span.dataset.mark = revisionText(this.run, Number(span.dataset.rev), this.labelOf);
	}

	/**
	 * The first shown token of the reply at a position or after it, or null while there is none. A row is computed
	 * from its own position's token, so the first token that the row's revision can change is the one after it.
	 */
	#firstShown(position: number): HTMLSpanElement | null {
		for (
			let index = Math.max(0, position - this.run.tokens.promptLength);
			index < this.#spans.length;
			index++
		) {
			const span = this.#spans[index];
			if (span && !span.classList.contains("put-away")) return span;
		}
		return null;
	}

	/** The stop string and what follows it are not part of the reply. It may begin inside a token. */
	#cutAtStop(): void {
		this.#cut = true;
		let room = this.run.replyText().length;
		this.#spans.forEach((span, index) => {
			if (span === null) return;
			const text = this.run.tokens.visibleText(index);
			if (text.length > room) {
				span.textContent = text.slice(0, room);
				span.classList.toggle("cut", room === 0);
			}
			room = Math.max(0, room - text.length);
		});
	}
}
