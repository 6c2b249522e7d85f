// Takes numbers of runs to the shelf and back. Whatever changes a run or what is shown makes it look again: what is
// wanted is fetched, and of the rest what `leaving` names goes. One part of a run travels at a time, in a task of its own,
// and the run lets go of it only when it lies there. A browser without such a store, or one that is full, keeps
// everything in memory.
//
// What was fetched stays on the shelf too: a part that nothing was added to leaves again without being written.
import type { Part } from "./rows";
import type { Run } from "./run";
import { BUDGET, type Holding, leaving } from "./shelf";

/** Where parts lie, by a run's name on the shelf and their index. Every promise may be refused. */
export interface Disk {
	write(run: string, index: number, part: Part): Promise<void>;
	/** Undefined where there is none. */
	read(run: string, index: number): Promise<Part | undefined>;
	remove(run: string): Promise<void>;
}

/** Of each run the indices of the parts that somebody reads or writes now. */
export type Wanted = ReadonlyMap<Run, ReadonlySet<number> | "all">;

export interface ShelvingOptions {
	/** Null where there is no such store. */
	disk: Disk | null;
	/** All runs that are shown, or may be again. */
	runs(): Iterable<Run>;
	wanted(): Wanted;
	/** Bytes of numbers that may stay in memory. */
	budget?: number;
}

interface Entry {
	/** On the shelf. */
	readonly name: string;
	readonly unsubscribe: () => void;
	used: number;
	/** Changes of the run's rows when they were last looked at. */
	seen: number;
	/** Of the parts that lie on the shelf, which version of them does. */
	readonly written: Map<number, number>;
	/** Something of it lies on the shelf. */
	there: boolean;
	coming: Promise<void> | null;
	/** So many need its numbers here until they say otherwise. */
	holders: number;
}

interface Place {
	run: Run;
	entry: Entry;
	index: number;
}

export const LOST =
	"The browser has lost the numbers of this reply, which it kept on disk, so there is no map of it.";
/** After so many refusals one after the other the store is taken to be full or forbidden. */
const MOST_REFUSALS = 3;

export class Shelving {
	#entries = new Map<Run, Entry>();
	#count = 0;
	#time = 0;
	#refusals = 0;
	#sending = false;

	constructor(private readonly options: ShelvingOptions) {}

	/** See who is here and who is wanted; fetch and send away accordingly. */
	look(): void {
		this.#time += 1;
		const runs = new Set(this.options.runs());
		const wanted = this.options.wanted();
		for (const [run, entry] of [...this.#entries]) if (!runs.has(run)) this.#forget(run, entry);
		for (const run of runs) {
			const { rows } = run;
			const entry = this.#entryOf(run);
			const came = entry.seen !== rows.changes.length;
			entry.seen = rows.changes.length;
			// Its numbers were dropped: nobody will ask for them.
			if (entry.there && rows.metrics.length === 0) this.#remove(entry);
			if (came || wanted.has(run)) entry.used = this.#time;
			if (this.#due(run, entry, wanted) !== undefined) void this.#fetch(run, entry);
		}
		void this.#send();
	}

	/** The numbers of a run are here once this is done, and stay until what it gives is called. */
	async hold(run: Run): Promise<() => void> {
		const entry = this.#entryOf(run);
		entry.holders += 1;
		// What is under way may have been asked for less.
		for (let tries = 0; tries < 2 && run.rows.state === "shelved"; tries++) await this.#fetch(run, entry);
		let held = true;
		return () => {
			if (held) entry.holders -= 1;
			held = false;
			this.look();
		};
	}

	#entryOf(run: Run): Entry {
		let entry = this.#entries.get(run);
		if (entry === undefined) {
			this.#count += 1;
			entry = {
				name: String(this.#count),
				unsubscribe: run.changed.subscribe(() => this.look()),
				used: this.#time,
				seen: 0,
				written: new Map(),
				there: false,
				coming: null,
				holders: 0,
			};
			this.#entries.set(run, entry);
		}
		return entry;
	}

	/** The run is gone from the page. */
	#forget(run: Run, entry: Entry): void {
		if (entry.holders > 0) return;
		this.#entries.delete(run);
		entry.unsubscribe();
		this.#remove(entry);
	}

	#remove(entry: Entry): void {
		entry.written.clear();
		// What stays there goes with the page.
		if (entry.there) this.options.disk?.remove(entry.name).catch(() => {});
		entry.there = false;
	}

	/** The first part on the shelf that must come back: it is wanted, or rows wait for it. */
	#due(run: Run, entry: Entry, wanted: Wanted): number | undefined {
		const { rows } = run;
		return [...rows.away].find((index) => isWanted(run, entry, index, wanted) || rows.late(index));
	}

	/** The first part that must leave. */
	#next(): Place | undefined {
		const budget = this.options.budget ?? BUDGET;
		let fixed = 0;
		for (const run of this.#entries.keys()) fixed += run.rows.size;
		if (fixed <= budget) return undefined;
		const wanted = this.options.wanted();
		const all: Holding<Place>[] = [];
		for (const [run, entry] of this.#entries) {
			for (let index = 0; index < run.rows.parts; index++) {
				if (run.rows.away.has(index)) continue;
				let bytes = 0;
				for (const chunk of run.rows.part(index).values()) bytes += chunk.byteLength;
				if (bytes === 0) continue;
				fixed -= bytes;
				const stays = isWanted(run, entry, index, wanted);
				all.push({ of: { run, entry, index }, bytes, used: entry.used, stays });
			}
		}
		return leaving(all, budget - fixed)[0];
	}

	/** One part after the other, until the rest fits. */
	async #send(): Promise<void> {
		const { disk } = this.options;
		if (disk === null || this.#sending || this.#refusals === MOST_REFUSALS) return;
		this.#sending = true;
		for (let next = this.#next(); next !== undefined; next = this.#next()) {
			try {
				await this.#put(disk, next);
				this.#refusals = 0;
			} catch {
				this.#refusals += 1;
				break;
			}
		}
		this.#sending = false;
	}

	async #put(disk: Disk, { run, entry, index }: Place): Promise<void> {
		const { rows } = run;
		const version = rows.version(index);
		if (entry.written.get(index) !== version) {
			entry.written.delete(index);
			entry.there = true;
			await disk.write(entry.name, index, rows.part(index));
			if (this.#entries.get(run) !== entry) {
				// Forgotten while it was written: what came there afterwards goes as well.
				entry.there = true;
				this.#remove(entry);
				return;
			}
			// It is another by now.
			if (rows.version(index) !== version || rows.metrics.length === 0) return;
			entry.written.set(index, version);
			if (isWanted(run, entry, index, this.options.wanted())) return;
		}
		rows.shelve(index);
		run.changed.changed();
	}

	#fetch(run: Run, entry: Entry): Promise<void> {
		entry.coming ??= this.#bring(run, entry).finally(() => {
			entry.coming = null;
		});
		return entry.coming;
	}

	async #bring(run: Run, entry: Entry): Promise<void> {
		const due = () => this.#due(run, entry, this.options.wanted());
		for (let index = due(); index !== undefined; index = due()) {
			try {
				const part = entry.written.has(index) ? await this.options.disk?.read(entry.name, index) : undefined;
				if (part === undefined) throw new Error("It is not there.");
				run.rows.bring(index, part);
			} catch {
				if (this.#entries.get(run) !== entry) return;
				if (!run.rows.away.has(index)) continue;
				run.rows.dropNumbers();
				run.giveUp(LOST);
			}
		}
		run.changed.changed();
		// Another must make room for it.
		void this.#send();
	}
}

function isWanted(run: Run, { holders }: Entry, index: number, wanted: Wanted): boolean {
	const parts = wanted.get(run);
	return holders > 0 || parts === "all" || parts?.has(index) === true;
}
