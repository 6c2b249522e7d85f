// How fast a reply comes, by the page's own clock: what is shown until the server's numbers come with its end.

export class Speed {
	#first: number | null = null;
	#last: number | null = null;

	/** `sentAt`, in milliseconds, is null where this page did not see the reply begin and so cannot measure it. */
	constructor(private readonly sentAt: number | null) {}

	/** New tokens came at this moment of the same clock. */
	tokens(now: number): void {
		this.#first ??= now;
		this.#last = now;
	}

	/** Milliseconds from the start to the first token. */
	firstTokenMs(): number | null {
		return this.#first === null || this.sentAt === null ? null : this.#first - this.sentAt;
	}

	/** Tokens of the reply after its first, over the time after the first. */
	tokensPerSecond(replyTokens: number): number | null {
		if (this.#first === null || this.#last === null || this.sentAt === null) return null;
		const seconds = (this.#last - this.#first) / 1000;
		return seconds > 0 && replyTokens > 1 ? (replyTokens - 1) / seconds : null;
	}
}
