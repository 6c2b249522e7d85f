// Takes numbers of runs to the shelf and back. Whatever changes a run or what is shown makes it look again: what is
// wanted is fetched, and of the rest what `leaving` names goes. The chunks of one metric travel at a time, each in a task
// of its own, and the run lets go of its numbers only when all of them lie there. A browser without such a store, or
// one that is full, keeps everything in memory.
//
// What was fetched stays on the shelf too: a run that nothing was added to leaves again without being written.
import type { Chunks } from "./rows";
import type { RunState } from "./run";
import { BUDGET, type Holding, leaving } from "./shelf";

/** Where chunks lie, by a run's name on the shelf and the metric. Every promise may be refused. */
export interface Disk {
	write(run: string, metric: string, chunks: Readonly<Chunks>): Promise<void>;
	/** Undefined where there are none. */
	read(run: string, metric: string): Promise<Chunks | undefined>;
	remove(run: string): Promise<void>;
}

export interface ShelvingOptions {
	/** Null where there is no such store. */
	disk: Disk | null;
	/** All runs that are shown, or may be again. */
	runs(): Iterable<RunState>;
	/** Those whose numbers somebody reads or writes now. */
	wanted(): ReadonlySet<RunState>;
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
	/** Changes of the rows that lie on the shelf; null where not all of them do. */
	written: number | null;
	/** Something of it lies on the shelf. */
	there: boolean;
	metrics: readonly string[];
	coming: Promise<void> | null;
	/** So many need its numbers here until they say otherwise. */
	holders: number;
}

export const LOST =
	"The browser has lost the numbers of this reply, which it kept on disk, so there is no map of it.";
/** After so many refusals one after the other the store is taken to be full or forbidden. */
const MOST_REFUSALS = 3;

export class Shelving {
	#entries = new Map<RunState, Entry>();
	#count = 0;
	#time = 0;
	#refusals = 0;
	#sending = false;

	constructor(private readonly options: ShelvingOptions) {}

	/** See who is here and who is wanted; fetch and send away accordingly. */
	look(): void {
		this.#time += 1;
		const runs = new Set(this.options.runs());
		const wantedNow = this.options.wanted();
		for (const [run, entry] of [...this.#entries]) if (!runs.has(run)) this.#forget(run, entry);
		for (const run of runs) {
			const entry = this.#entryOf(run);
			const came = entry.seen !== run.rows.changes.length;
			entry.seen = run.rows.changes.length;
			// Its numbers were dropped: nobody will ask for them.
			if (entry.there && run.rows.metrics.length === 0) this.#remove(entry);
			const wanted = entry.holders > 0 || wantedNow.has(run);
			if (came || wanted) entry.used = this.#time;
			if (run.rows.state === "shelved" && (wanted || run.rows.late)) void this.#fetch(run, entry);
		}
		void this.#send();
	}

	/** The numbers of a run are here once this is done, and stay until what it gives is called. */
	async hold(run: RunState): Promise<() => void> {
		const entry = this.#entryOf(run);
		entry.holders += 1;
		if (run.rows.state === "shelved") await this.#fetch(run, entry);
		let held = true;
		return () => {
			if (held) entry.holders -= 1;
			held = false;
			this.look();
		};
	}

	#entryOf(run: RunState): Entry {
		let entry = this.#entries.get(run);
		if (entry === undefined) {
			this.#count += 1;
			entry = {
				name: String(this.#count),
				unsubscribe: run.changed.subscribe(() => this.look()),
				used: this.#time,
				seen: 0,
				written: null,
				there: false,
				metrics: [],
				coming: null,
				holders: 0,
			};
			this.#entries.set(run, entry);
		}
		return entry;
	}

	/** The run is gone from the page. */
	#forget(run: RunState, entry: Entry): void {
		if (entry.holders > 0) return;
		this.#entries.delete(run);
		entry.unsubscribe();
		this.#remove(entry);
	}

	#remove(entry: Entry): void {
		entry.written = null;
		// What stays there goes with the page.
		if (entry.there) this.options.disk?.remove(entry.name).catch(() => {});
		entry.there = false;
	}

	/** The first that must leave. */
	#next(): [RunState, Entry] | undefined {
		const wanted = this.options.wanted();
		const all = [...this.#entries].map((one): Holding<[RunState, Entry]> => {
			const [run, entry] = one;
			// What has no metric has nothing to take there.
			const stays =
				entry.holders > 0 || wanted.has(run) || run.rows.state === "shelved" || run.rows.metrics.length === 0;
			return { of: one, bytes: run.rows.size, used: entry.used, stays };
		});
		return leaving(all, this.options.budget ?? BUDGET)[0];
	}

	/** One run after the other, until the rest fits. */
	async #send(): Promise<void> {
		const { disk } = this.options;
		if (disk === null || this.#sending) return;
		this.#sending = true;
		for (let next = this.#next(); next !== undefined; next = this.#next()) {
			if (this.#refusals === MOST_REFUSALS) break;
			const [run, entry] = next;
			try {
				await this.#put(disk, run, entry);
				this.#refusals = 0;
			} catch {
				this.#refusals += 1;
				this.#remove(entry);
				break;
			}
		}
		this.#sending = false;
	}

	async #put(disk: Disk, run: RunState, entry: Entry): Promise<void> {
		const { rows } = run;
		const version = rows.changes.length;
		const metrics = rows.metrics;
		if (entry.written !== version) {
			entry.written = null;
			entry.there = true;
			for (const metric of metrics) {
				await disk.write(entry.name, metric, rows.chunks(metric));
				// It is wanted again, or is another by now.
				if (!this.#unchanged(run, entry, version)) return;
			}
			entry.written = version;
			entry.metrics = metrics;
		}
		rows.shelve();
		run.changed.changed();
	}

	#unchanged(run: RunState, entry: Entry, version: number): boolean {
		if (this.#entries.get(run) !== entry) {
			// Forgotten while it was written: what came there afterwards goes as well.
			entry.there = true;
			this.#remove(entry);
			return false;
		}
		const { rows } = run;
		const wanted = entry.holders > 0 || this.options.wanted().has(run);
		return !wanted && rows.changes.length === version && rows.metrics.length > 0;
	}

	#fetch(run: RunState, entry: Entry): Promise<void> {
		entry.coming ??= this.#bring(run, entry).finally(() => {
			entry.coming = null;
		});
		return entry.coming;
	}

	async #bring(run: RunState, entry: Entry): Promise<void> {
		const found = new Map<string, Chunks>();
		try {
			if (entry.metrics.length === 0) throw new Error("They were forgotten.");
			for (const metric of entry.metrics) {
				const chunks = await this.options.disk?.read(entry.name, metric);
				if (chunks === undefined) throw new Error("They are not there.");
				found.set(metric, chunks);
			}
			run.rows.bring(found);
			run.changed.changed();
			// Another must make room for it.
			void this.#send();
		} catch {
			if (run.rows.state === "here" || this.#entries.get(run) !== entry) return;
			run.rows.dropNumbers();
			run.giveUp(LOST);
		}
	}
}
