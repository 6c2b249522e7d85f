// Chunks that are made of others, each when it is first asked for and from then on only where something has changed.
import { NO_NUMBER } from "../protocol/fp16";
import { CHUNK, type Change } from "./rows";

/** Write the numbers of positions [from, to) into a chunk that begins at position `first`. */
export type MakeNumbers = (codes: Uint16Array, first: number, from: number, to: number) => void;

export class MadeChunks {
	#chunks = new Map<number, { codes: Uint16Array; upTo: number }>();

	constructor(
		private readonly changes: readonly Change[],
		private readonly make: MakeNumbers,
	) {}

	/** The chunk of an index, up to date with all changes; `layers` numbers a position. */
	get(index: number, layers: number): Uint16Array {
		const known = this.#chunks.get(index);
		const codes = known?.codes ?? new Uint16Array(CHUNK * layers).fill(NO_NUMBER);
		const [first, end] = [index * CHUNK, (index + 1) * CHUNK];
		// Changes overlap where rows came more than once: all that is new is made in one.
		let [from, to] = [end, first];
		for (let i = known?.upTo ?? 0; i < this.changes.length; i++) {
			const change = this.changes[i]!;
			if (change.end <= first || change.start >= end) continue;
			from = Math.min(from, Math.max(first, change.start));
			to = Math.max(to, Math.min(end, change.end));
		}
		if (from < to) this.make(codes, first, from, to);
		this.#chunks.set(index, { codes, upTo: this.changes.length });
		return codes;
	}

	clear(): void {
		this.#chunks.clear();
	}
}

/** Takes what is new of several logs of changes into one. */
export class JoinedChanges {
	readonly all: Change[] = [];
	#seen = new Map<readonly Change[], number>();

	/** `placed` says where a change of that log is in this one; null where it is nowhere. */
	take(changes: readonly Change[], placed: (change: Change) => Change | null = (change) => change): void {
		for (let i = this.#seen.get(changes) ?? 0; i < changes.length; i++) {
			const change = placed(changes[i]!);
			if (change !== null) this.all.push(change);
		}
		this.#seen.set(changes, changes.length);
	}

	/** What a log has so far is in this one already. */
	pass(changes: readonly Change[]): void {
		this.#seen.set(changes, changes.length);
	}
}
