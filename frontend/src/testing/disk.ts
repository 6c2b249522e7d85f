// A shelf in memory, which a test can have refuse or wait. Used by tests only.
import type { Part } from "../store/rows";
import type { Disk } from "../store/shelving";

export class MemoryDisk implements Disk {
	/** By run and index of the part, as `run/index`. */
	readonly there = new Map<string, Part>();
	/** What was asked of it, oldest first. */
	readonly asked: string[] = [];
	/** The kinds that are refused. */
	readonly refuses = new Set<"write" | "read">();
	/** Called before anything is done. */
	before: (asked: string) => Promise<void> | void = () => {};

	async write(run: string, index: number, part: Part): Promise<void> {
		await this.#ask(`write ${run}/${index}`);
		if (this.refuses.has("write")) throw new DOMException("There is no room.", "QuotaExceededError");
		this.there.set(`${run}/${index}`, structuredClone(part));
	}

	async read(run: string, index: number): Promise<Part | undefined> {
		await this.#ask(`read ${run}/${index}`);
		if (this.refuses.has("read")) throw new DOMException("It cannot be read.", "UnknownError");
		return structuredClone(this.there.get(`${run}/${index}`));
	}

	async remove(run: string): Promise<void> {
		await this.#ask(`remove ${run}`);
		for (const name of [...this.there.keys()]) if (name.startsWith(`${run}/`)) this.there.delete(name);
	}

	/** The names of what lies there. */
	get names(): string[] {
		return [...this.there.keys()].sort();
	}

	async #ask(what: string): Promise<void> {
		this.asked.push(what);
		await this.before(what);
	}
}
