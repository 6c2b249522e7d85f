// A shelf in memory, which a test can have refuse or wait. Used by tests only.
import type { Chunks } from "../store/rows";
import type { Disk } from "../store/shelving";

export class MemoryDisk implements Disk {
	/** By run and metric, as `run/metric`. */
	readonly there = new Map<string, Chunks>();
	/** What was asked of it, oldest first. */
	readonly asked: string[] = [];
	/** The kinds that are refused. */
	readonly refuses = new Set<"write" | "read">();
	/** Called before anything is done. */
	before: (asked: string) => Promise<void> | void = () => {};

	async write(run: string, metric: string, chunks: Readonly<Chunks>): Promise<void> {
		await this.#ask(`write ${run}/${metric}`);
		if (this.refuses.has("write")) throw new DOMException("There is no room.", "QuotaExceededError");
		this.there.set(`${run}/${metric}`, structuredClone(chunks) as Chunks);
	}

	async read(run: string, metric: string): Promise<Chunks | undefined> {
		await this.#ask(`read ${run}/${metric}`);
		if (this.refuses.has("read")) throw new DOMException("It cannot be read.", "UnknownError");
		return structuredClone(this.there.get(`${run}/${metric}`));
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
