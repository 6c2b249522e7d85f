// The columns of one map: the tokens of the run that is shown, and for each of them the run whose numbers stand there.
// A conversation is computed turn by turn, and a turn's prompt is the conversation so far. What stands in front of a
// turn is therefore shown as it was computed when it was written, by the run that wrote it; reading it again as a prompt
// gives other numbers wherever something was steered, and is shown only where a person asks for it.
//
// Runs are joined at the tokens that they have in common from the first on, so a position means the same token in all of
// them. Where an earlier run has no row, the next later one that has read the token stands in.
import { NO_NUMBER } from "../protocol/fp16";
import type { Field } from "./field";
import { JoinedChanges, MadeChunks } from "./made";
import { CHUNK, type Change, NO_ROW } from "./rows";
import type { Run } from "./run";

/** Positions from the end of the segment before on, up to `end`, are an earlier run's. */
export interface Segment {
	readonly run: Run;
	readonly end: number;
}

interface Counts {
	/** What was counted. */
	made: string;
	received: number;
	own: number;
	covered: number;
}

const NOT_COUNTED: Counts = { made: "", received: 0, own: 0, covered: 0 };

export class Strip {
	#segments: readonly Segment[] = [];
	/** What the segments were made from. */
	#made = "";
	#parts: ReadonlyMap<Run, ReadonlySet<number> | "all"> | null = null;
	/** What the parts were made from. */
	#partsMade = "";
	#counted = NOT_COUNTED;

	/** `earlier` are the runs of the turns in front, oldest first. */
	constructor(
		readonly run: Run,
		private readonly earlier: readonly Run[] = [],
	) {}

	/** Whether it is a strip of these runs. */
	isOf(run: Run | null, earlier: readonly Run[]): boolean {
		return (
			run === this.run &&
			earlier.length === this.earlier.length &&
			earlier.every((one, index) => one === this.earlier[index])
		);
	}

	/** Earlier runs and where each ends, in order; none that has no token of its own here. As of the last `refresh`. */
	get segments(): readonly Segment[] {
		return this.#segments;
	}

	/** Find out anew which run is where, if prompts have come since. Called before anything is drawn of it. */
	refresh(): this {
		if (this.earlier.length === 0) return this;
		const { run } = this;
		const told = [run, ...this.earlier].map((one) => `${one.tokens.length},${hasNumbers(one)}`);
		const made = `${told.join(";")} ${run.tokens.promptLength} ${run.model} ${run.reread}`;
		if (made !== this.#made) {
			this.#made = made;
			this.#segments = run.reread ? [] : segmentsOf(run, this.earlier);
			this.#parts = null;
			this.#counted = NOT_COUNTED;
		}
		return this;
	}

	/** Whose numbers stand at a position. */
	owner(position: number): Run {
		const { segments } = this;
		// Ends ascend: nearly always it is the first that reaches as far, or none.
		if (position >= (segments.at(-1)?.end ?? 0)) return this.run;
		let [low, high] = [0, segments.length - 1];
		while (low < high) {
			const middle = (low + high) >> 1;
			if (position < segments[middle]!.end) high = middle;
			else low = middle + 1;
		}
		for (let index = low; index < segments.length; index++) {
			const { run } = segments[index]!;
			if (run.rows.has(position)) return run;
		}
		return this.run;
	}

	/** One past the last position that has a row. */
	get columns(): number {
		return Math.max(this.run.rows.columns, this.segments.at(-1)?.end ?? 0);
	}

	get layers(): number {
		return this.run.rows.layers || (this.segments.at(-1)?.run.rows.layers ?? 0);
	}

	has(position: number): boolean {
		return this.owner(position).rows.has(position);
	}

	/** The runs whose numbers stand in it. */
	get runs(): readonly Run[] {
		return [...this.segments.map(({ run }) => run), this.run];
	}

	/** Indices of the parts of each run that stand in it; of the shown run all. */
	get parts(): ReadonlyMap<Run, ReadonlySet<number> | "all"> {
		const told = this.segments.map(({ run, end }) => `${run.rows.received},${end}`).join();
		if (told === this.#partsMade && this.#parts !== null) return this.#parts;
		const parts = new Map<Run, Set<number> | "all">(this.segments.map(({ run }) => [run, new Set()]));
		parts.set(this.run, "all");
		for (let position = 0; position < (this.segments.at(-1)?.end ?? 0); position++) {
			const found = parts.get(this.owner(position));
			if (found instanceof Set) found.add(Math.floor(position / CHUNK));
		}
		this.#partsMade = told;
		this.#parts = parts;
		return parts;
	}

	/** Numbers that stand in it lie on the shelf. */
	get shelved(): boolean {
		for (const run of this.runs) {
			if (run.rows.state === "here") continue;
			const parts = this.parts.get(run)!;
			if (parts === "all" || [...parts].some((index) => run.rows.away.has(index))) return true;
		}
		return false;
	}

	/** Positions that have a row. */
	get received(): number {
		const { received, own } = this.#count();
		return received + this.run.rows.received - own;
	}

	/** Positions that the shown run did not compute and nobody else has here. */
	get unread(): number {
		return this.run.cached.count - this.#count().covered;
	}

	/**
	 * Of the columns that are joined: how many have a row, how many have one of the shown run, and of how many that this
	 * run did not compute another's stands there. Counted when rows have come to any of them, and not with each that is
	 * appended behind them.
	 */
	#count(): Counts {
		const { segments, run } = this;
		const joined = segments.at(-1)?.end ?? 0;
		const versions = Array.from({ length: Math.ceil(joined / CHUNK) }, (_, part) => run.rows.version(part));
		const told = segments.map((one) => `${one.run.rows.received},${one.end}`);
		const made = [...told, run.cached.count, ...versions].join();
		if (made === this.#counted.made) return this.#counted;
		const counts = { made, received: 0, own: 0, covered: 0 };
		for (let position = 0; position < joined; position++) {
			const here = this.has(position);
			if (here) counts.received += 1;
			if (run.rows.has(position)) counts.own += 1;
			if (here && run.cached.has(position)) counts.covered += 1;
		}
		this.#counted = counts;
		return counts;
	}

	/** Where the revision in force changes from one column to the next within a run, and the run. */
	boundaries(): { run: Run; rev: number; position: number }[] {
		const found: { run: Run; rev: number; position: number }[] = [];
		let start = 0;
		for (const { run, end } of [...this.segments, { run: this.run, end: Number.POSITIVE_INFINITY }]) {
			for (const { rev, position } of run.rows.boundaries()) {
				if (position >= start && position < end) found.push({ run, rev, position });
			}
			start = end;
		}
		return found;
	}

	/** Hear of changes to any of its runs. */
	subscribe(listener: () => void): () => void {
		const stops = [this.run, ...this.earlier].map((run) => run.changed.subscribe(listener));
		return () => {
			for (const stop of stops) stop();
		};
	}
}

/** Where numbers are gone, those of a later turn stand in, if it has read the tokens. */
function hasNumbers({ rows, delivery: { gone } }: Run): boolean {
	return rows.received > 0 && gone === null;
}

function segmentsOf(run: Run, earlier: readonly Run[]): Segment[] {
	const segments: Segment[] = [];
	let end = 0;
	for (const one of earlier) {
		// The same numbers are other tokens to another model, and an adapter is one.
		if (one.model !== run.model || one.adapter !== run.adapter || !hasNumbers(one)) continue;
		const common = commonTokens(one, run);
		if (common <= end) continue;
		end = common;
		segments.push({ run: one, end });
	}
	return segments;
}

/** Tokens that an earlier run and the prompt of a later one have in common from the first on. */
function commonTokens(one: Run, later: Run): number {
	const most = Math.min(one.tokens.length, later.tokens.promptLength);
	let common = 0;
	while (common < most && one.tokens.idAt(common) === later.tokens.idAt(common)) common++;
	return common;
}

/** One metric of a strip, as a map draws it. */
export class StripField implements Field {
	readonly #changes = new JoinedChanges();
	#segments: readonly Segment[] = [];
	/** Chunks that more than one run has columns of. */
	readonly #mixed = new MadeChunks(this.#changes.all, (...at) => this.#copy(...at));

	constructor(
		readonly strip: Strip,
		readonly metric: string,
	) {}

	sync(): void {
		const { segments } = this.strip.refresh();
		if (segments !== this.#segments) {
			this.#segments = segments;
			this.#mixed.clear();
			if (this.strip.columns > 0) this.#changes.all.push({ start: 0, end: this.strip.columns });
			// One change that is all of it says no less than all that its runs have ever had.
			for (const run of this.strip.runs) this.#changes.pass(run.rows.changes);
		}
		for (const run of this.strip.runs) this.#changes.take(run.rows.changes);
	}

	get changes(): readonly Change[] {
		return this.#changes.all;
	}

	get layers(): number {
		return this.strip.layers;
	}

	get columns(): number {
		return this.strip.columns;
	}

	get shelved(): boolean {
		return this.strip.shelved;
	}

	get empty(): boolean {
		const { segments, run } = this.strip;
		return !run.rows.carries(this.metric) && !segments.some((one) => one.run.rows.carries(this.metric));
	}

	get first(): number | null {
		let first: number | null = null;
		for (const { run } of [...this.strip.segments, this.strip]) {
			const here = run.rows.first(this.metric);
			if (here !== null && (first === null || here < first)) first = here;
		}
		return first;
	}

	chunk(index: number): Uint16Array | undefined {
		const { segments, run } = this.strip;
		const start = index * CHUNK;
		if (start >= (segments.at(-1)?.end ?? 0)) return run.rows.chunk(this.metric, index);
		return this.#mixed.get(index, this.layers);
	}

	#copy(codes: Uint16Array, first: number, from: number, to: number): void {
		const { layers } = this;
		for (let position = from; position < to; position++) {
			const { rows } = this.strip.owner(position);
			if (rows.rev(position) === NO_ROW || rows.layers !== layers) continue;
			const at = (position - first) * layers;
			const numbers = rows.chunk(this.metric, first / CHUNK);
			if (numbers === undefined) codes.fill(NO_NUMBER, at, at + layers);
			else codes.set(numbers.subarray(at, at + layers), at);
		}
	}
}
