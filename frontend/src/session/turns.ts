// The turns of the conversation as the page shows them, one path through the tree of all, and which reply is in the
// heatmap. A turn whose start the server has not admitted yet remembers what it replaced: refused, it leaves everything as
// it was before.
import type { Run } from "../store/run";
import type { ViewStore } from "../view/view";
import { replyText, type Turn } from "./conversation";
import { type Node, TurnTree } from "./tree";

/** Something said on the page only, after so many turns. */
export interface Aside {
	readonly key: string;
	readonly after: number;
	readonly said: string;
	readonly answer: string;
}

interface Starting {
	readonly run: Run;
	readonly before: { readonly turns: readonly Turn[]; readonly shown: Run | null };
}

export class Turns {
	asides: readonly Aside[] = [];
	/** Words that a refused start gave back, until the composer takes them. */
	returned: string | null = null;
	#starting: Starting | null = null;
	/** Starts of chats that were put away before the server admitted them, by their ids. */
	#putAway = new Set<string>();
	#count = 0;
	readonly #tree = new TurnTree();

	constructor(private readonly view: ViewStore) {}

	/** The turns on the page, the first one first. */
	get all(): readonly Turn[] {
		return this.#tree.path;
	}

	set all(turns: readonly Turn[]) {
		this.#tree.path = turns;
	}

	/** All turns, also those that others were asked or written again as. */
	get everything(): readonly Turn[] {
		return this.#tree.all;
	}

	/** The same, each with the key of the turn in front of it. */
	get nodes(): readonly Readonly<Node>[] {
		return this.#tree.nodes;
	}

	/** Begin with these turns, and show the path to the last of them. */
	plant(nodes: readonly Readonly<Node>[]): void {
		this.#tree.plant(nodes);
		this.shown = this.last?.run ?? null;
	}

	/** Which of the turns in its place one is, from 0, and how many there are. */
	place(key: string): { at: number; of: number } {
		const beside = this.#beside(key);
		return { at: beside.indexOf(key), of: beside.length };
	}

	/** The key of the turn so many places beside one; null where there is none. */
	beside(key: string, step: number): string | null {
		const beside = this.#beside(key);
		return beside[beside.indexOf(key) + step] ?? null;
	}

	/** What a notebook asked is no other way of asking a person's question. */
	#beside(key: string): readonly string[] {
		const chat = (one: string) => this.#tree.get(one)?.run.origin !== "notebook";
		return chat(key) ? this.#tree.beside(key).filter(chat) : [key];
	}

	/** Whether the page shows what a notebook asked; it stands there alone. */
	get notebook(): boolean {
		return this.last?.run.origin === "notebook";
	}

	/** Forget a turn that is not shown. */
	remove(key: string): void {
		this.#tree.remove(key);
	}

	/** Put the turn of this key on the page, with what was shown behind it last. */
	choose(key: string): void {
		const turn = this.#tree.get(key);
		if (turn === null) return;
		this.#tree.choose(key);
		this.shown = turn.run;
	}

	/** The run in the heatmap. */
	get shown(): Run | null {
		const id = this.view.main.run;
		return id === null ? null : (this.everything.find(({ run }) => run.id === id)?.run ?? null);
	}

	set shown(run: Run | null) {
		if (this.view.main.run !== (run?.id ?? null)) this.view.changeMain({ run: run?.id ?? null });
	}

	get last(): Turn | undefined {
		return this.all.at(-1);
	}

	/** The run being written, if any: always the last turn's. */
	get live(): Run | null {
		const run = this.last?.run;
		return run?.delivery.live ? run : null;
	}

	/** All runs that are shown or may be again: also those that a start which waits would replace. */
	get runs(): readonly Run[] {
		const turns = new Set([...this.everything, ...(this.#starting?.before.turns ?? [])]);
		return [...turns].flatMap(({ before, run }) => [...before, run]);
	}

	/** The last reply has a beginning and ended before its own end. */
	get unfinished(): boolean {
		const { last } = this;
		const reason = last?.run.finished?.reason;
		return (
			last !== undefined && replyText(last).trim() !== "" && (reason === "cancelled" || reason === "length")
		);
	}

	/** What a reload should find: the turns that the server took, and the question of a start that it may have. */
	get keepable(): { turns: readonly Turn[]; asked: string | null } {
		if (this.#starting === null) return { turns: this.all, asked: null };
		return { turns: this.#starting.before.turns, asked: this.#asks ? (this.last?.user ?? null) : null };
	}

	/** Whether the start that waits has a question of its own, and does not write a reply again. */
	get #asks(): boolean {
		const turns = this.#starting?.before.turns ?? [];
		return turns.length < this.all.length || turns.at(-1)?.run.origin === "notebook";
	}

	/** The turns that lead to one, the first one first. */
	pathTo(key: string): readonly Turn[] {
		return this.#tree.pathTo(key);
	}

	/** A name of the page's own for a run or a turn. */
	newId(): string {
		this.#count += 1;
		return `c${this.#count}`;
	}

	/** The start of the last of these turns was sent. */
	begin(turns: readonly Turn[]): void {
		const { run } = turns.at(-1)!;
		this.#starting = { run, before: { turns: this.all, shown: this.shown } };
		this.all = turns;
		this.shown = run;
	}

	/** The run whose start was sent under this id and is not admitted yet. */
	starting(id: string): Run | null {
		return this.#starting?.run.id === id ? this.#starting.run : null;
	}

	admitted(): void {
		this.#starting = null;
		// Of a run that another goes on from, nothing but the text is shown any more.
		for (const { before } of this.all) for (const run of before) run.dropNumbers();
	}

	/** The start that waits was not taken: everything is as before it. Returns its run, null where none waits. */
	takeBack(): Run | null {
		const starting = this.#starting;
		if (starting === null) return null;
		const { turns, shown } = starting.before;
		// A refused regeneration puts the old reply back, so its question must not also return as text.
		if (this.#asks) this.returned = this.last?.user ?? null;
		this.#starting = null;
		const refused = this.last!.key;
		this.all = turns;
		if (!turns.some(({ key }) => key === refused)) this.#tree.remove(refused);
		this.shown = shown;
		return starting.run;
	}

	takeReturned(): string | null {
		const text = this.returned;
		this.returned = null;
		return text;
	}

	/** Put an answer into the page that is no part of the conversation. */
	aside(said: string, answer: string): void {
		this.#count += 1;
		this.asides = [...this.asides, { key: `a${this.#count}`, after: this.all.length, said, answer }];
	}

	clear(): void {
		if (this.#starting !== null) this.#putAway.add(this.#starting.run.id);
		this.#starting = null;
		this.#tree.clear();
		this.asides = [];
		this.shown = null;
	}

	/** Whether a start was put away before it was answered; asked once, by its answer. */
	wasPutAway(id: string): boolean {
		return this.#putAway.delete(id);
	}
}
