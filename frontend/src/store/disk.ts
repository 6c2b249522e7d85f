// The shelf in the browser's IndexedDB. A page's life writes under a name of its own and deletes it when the page ends;
// what a life left that could not do so is deleted by the next that starts (`lives.ts`). Numbers lie there as long as a
// page needs them and are no archive: they are written without waiting for the disk.
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import { ifOver, type Locks, live, newLife } from "./lives";
import type { Part } from "./rows";
import type { Disk } from "./shelving";

const NAME = "steersight.shelf";
/** Some browsers never answer at all. */
const OPEN_MS = 10_000;
/** How often a life without locks says that it goes on. */
const BEAT_MS = 3600 * 1000;

interface Shelf extends DBSchema {
	/** Life, run and index of the part. */
	numbers: { key: [string, string, number]; value: Part };
	/** When each life was last heard of, in ms since 1970. */
	lives: { key: string; value: number };
}

type Opened = IDBPDatabase<Shelf>;

export class BrowserDisk implements Disk {
	readonly #life = newLife();
	#opening: Promise<Opened> | null = null;
	#open: Opened | null = null;
	#living: Promise<void> | null = null;
	#ended = false;

	constructor(private readonly locks: Locks | undefined = globalThis.navigator?.locks) {}

	async write(run: string, index: number, part: Part): Promise<void> {
		if (this.#ended) throw new Error("The page is over.");
		const db = await this.#db();
		this.#living ??= this.#live().catch((error) => {
			this.#living = null;
			throw error;
		});
		await this.#living;
		const change = db.transaction("numbers", "readwrite", { durability: "relaxed" });
		await Promise.all([change.store.put(part, [this.#life, run, index]), change.done]);
	}

	async read(run: string, index: number): Promise<Part | undefined> {
		const key: [string, string, number] = [this.#life, run, index];
		try {
			return await (await this.#db()).get("numbers", key);
		} catch {
			// Browsers close a store under memory pressure; it can be opened again.
			this.#close();
			return (await this.#db()).get("numbers", key);
		}
	}

	async remove(run: string): Promise<void> {
		await (await this.#db()).delete("numbers", below(this.#life, run));
	}

	/** The page ends: nothing that this life wrote is needed any more. As far as the browser still does it. */
	end(): void {
		this.#ended = true;
		if (this.#living === null || this.#open === null) return;
		try {
			void drop(this.#open, this.#life).catch(() => {});
		} catch {
			// The next start does it.
		}
	}

	/** Delete what lives left that are over. */
	async sweep(): Promise<void> {
		const db = await this.#db();
		for (const life of await db.getAllKeys("lives")) {
			if (life === this.#life) continue;
			const seen = (await db.get("lives", life)) ?? 0;
			await ifOver(this.locks, life, seen, Date.now(), () => drop(db, life));
		}
	}

	async #live(): Promise<void> {
		await live(this.locks, this.#life);
		await this.#beat();
		if (this.locks === undefined) setInterval(() => this.#beat().catch(() => {}), BEAT_MS);
	}

	async #beat(): Promise<void> {
		await (await this.#db()).put("lives", Date.now(), this.#life);
	}

	#db(): Promise<Opened> {
		this.#opening ??= this.#opened().catch((error) => {
			this.#opening = null;
			throw error;
		});
		return this.#opening;
	}

	async #opened(): Promise<Opened> {
		const opening = openDB<Shelf>(NAME, 1, {
			upgrade(db) {
				db.createObjectStore("numbers");
				db.createObjectStore("lives");
			},
			terminated: () => this.#close(),
		});
		this.#open = await within(OPEN_MS, opening);
		return this.#open;
	}

	#close(): void {
		this.#open?.close();
		this.#open = null;
		this.#opening = null;
	}
}

/** All keys that begin like this: arrays sort after texts and numbers. */
function below(...beginning: string[]): IDBKeyRange {
	return IDBKeyRange.bound(beginning, [...beginning, []]);
}

/** All of one life at once: while any of it lies there, its name does too. */
async function drop(db: Opened, life: string): Promise<void> {
	const change = db.transaction(["numbers", "lives"], "readwrite");
	const done = Promise.all([
		change.objectStore("numbers").delete(below(life)),
		change.objectStore("lives").delete(life),
		change.done,
	]);
	// Of a page that ends nobody waits for the answers.
	change.commit();
	await done;
}

function within<T>(ms: number, promise: Promise<T>): Promise<T> {
	let timer: ReturnType<typeof setTimeout>;
	const late = new Promise<never>((_, refuse) => {
		timer = setTimeout(() => refuse(new Error("The browser does not open its store.")), ms);
	});
	return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
