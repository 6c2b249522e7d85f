// What a model thought before it answered, as a disclosure: open while it is being written, closed once the answer has
// begun, and from the moment at which a person has opened or closed it as that person wants it.

export class ThoughtFold {
	/** Where its text goes. */
	readonly text: HTMLElement;
	readonly #details: HTMLDetailsElement;
	readonly #summary: HTMLElement;
	#chosen = false;
	#said = "";

	/** Stands at the end of `root`. */
	constructor(root: HTMLElement) {
		const document = root.ownerDocument;
		this.#details = document.createElement("details");
		this.#details.className = "thought";
		this.#details.dataset.testid = "thought";
		this.#summary = document.createElement("summary");
		// Enter and space come as clicks too.
		this.#summary.addEventListener("click", () => {
			this.#chosen = true;
		});
		this.text = document.createElement("div");
		this.text.className = "thought-text";
		this.#details.append(this.#summary, this.text);
		root.append(this.#details);
	}

	/** How many tokens it has, null where that is not known, and whether it goes on. */
	say(tokens: number | null, goesOn: boolean): void {
		const size = tokens === null ? "" : `, ${tokens.toLocaleString("en")} token${tokens === 1 ? "" : "s"}`;
		const said = `${goesOn ? "Thinking" : "Thought"}${size}`;
		if (said !== this.#said) {
			this.#said = said;
			this.#summary.textContent = said;
		}
		if (!this.#chosen && this.#details.open !== goesOn) this.#details.open = goesOn;
	}
}
