// Blocks of code that notebooks have left on the server, and those of them that the next reply is to have. A reply has
// those that were on when it was asked for, to its end.
import { type Fetch, Http } from "../connection/http";
import type { EditInfo } from "../protocol/types.gen";

export class Edits {
	/** Those of the server, in the order in which they act. */
	all: readonly EditInfo[] = [];
	/** By name: a cell of a notebook that is run again puts another in the place of one that is on. */
	readonly #on = new Set<string>();
	readonly #http: Http;

	constructor(
		private readonly changed: () => void,
		token?: () => string | null,
		fetch?: Fetch,
	) {
		this.#http = new Http(token, fetch);
	}

	/** The server has these. Returns the names of those that were on and are gone. */
	known(edits: readonly EditInfo[]): string[] {
		this.all = edits;
		const gone = [...this.#on].filter((name) => !edits.some((edit) => edit.name === name));
		for (const name of gone) this.#on.delete(name);
		return gone;
	}

	isOn(name: string): boolean {
		return this.#on.has(name);
	}

	turn(name: string, on: boolean): void {
		if (on) this.#on.add(name);
		else this.#on.delete(name);
		this.changed();
	}

	/** The names that a start says. */
	get chosen(): string[] {
		return this.all.map(({ name }) => name).filter((name) => this.#on.has(name));
	}

	/** For everybody on the server. Throws what the server says where it did not. */
	async remove({ id }: EditInfo): Promise<void> {
		await this.#http.ask(`api/edits/${encodeURIComponent(id)}`, { method: "DELETE" });
	}
}
