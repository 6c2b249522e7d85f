// All turns of a conversation. A turn that is asked or written again stands beside the one before it, and each of them may
// go on in its own way: a tree. The page shows one path through it, from the first turn to a last one.
import type { Turn } from "./conversation";

export interface Node {
	turn: Turn;
	/** Key of the turn in front; null for a first one. */
	parent: string | null;
}

export class TurnTree {
	#nodes = new Map<string, Node>();
	/** Of each turn, and of the beginning (null), the turn behind it that was on the path last. */
	#chosen = new Map<string | null, string>();
	#path: readonly Turn[] = [];

	/** The turns that are shown, the first one first. */
	get path(): readonly Turn[] {
		return this.#path;
	}

	/** Show these turns, each behind the one in front. Those that stood there before stay beside them. */
	set path(turns: readonly Turn[]) {
		let parent: string | null = null;
		for (const turn of turns) {
			this.#nodes.set(turn.key, { turn, parent });
			this.#chosen.set(parent, turn.key);
			parent = turn.key;
		}
		this.#chosen.delete(parent);
		this.#path = turns;
	}

	/** All turns, also those that are not shown, as they came. */
	get all(): readonly Turn[] {
		return [...this.#nodes.values()].map(({ turn }) => turn);
	}

	/** All turns with the keys of those in front of them. */
	get nodes(): readonly Readonly<Node>[] {
		return [...this.#nodes.values()];
	}

	/** Begin with these turns, none of which follows itself, and show the path to the last of them. */
	plant(nodes: readonly Readonly<Node>[]): void {
		this.clear();
		for (const node of nodes) this.#nodes.set(node.turn.key, node);
		const last = nodes.at(-1);
		if (last !== undefined) this.choose(last.turn.key);
	}

	get(key: string): Turn | null {
		return this.#nodes.get(key)?.turn ?? null;
	}

	/** Key of the turn in front of one; null where it is a first one. */
	parent(key: string): string | null {
		return this.#nodes.get(key)?.parent ?? null;
	}

	/** The turns that stand in one place, as they came: a turn, and those it was asked or written again as. */
	beside(key: string): readonly string[] {
		const parent = this.parent(key);
		return [...this.#nodes].filter(([, node]) => node.parent === parent).map(([one]) => one);
	}

	/** The turns up to one, the first one first. */
	pathTo(key: string): Turn[] {
		const path: Turn[] = [];
		for (let at: string | null = key; at !== null; at = this.parent(at))
			path.unshift(this.#nodes.get(at)!.turn);
		return path;
	}

	/** Show the path through a turn: behind it, what was shown there last. */
	choose(key: string): void {
		const path = this.pathTo(key);
		for (let at = this.#chosen.get(key); at !== undefined; at = this.#chosen.get(at)) {
			path.push(this.#nodes.get(at)!.turn);
		}
		this.path = path;
	}

	/** Forget a turn that is not shown. */
	remove(key: string): void {
		this.#nodes.delete(key);
		for (const [parent, chosen] of this.#chosen) if (chosen === key) this.#chosen.delete(parent);
	}

	clear(): void {
		this.#nodes.clear();
		this.#chosen.clear();
		this.#path = [];
	}
}
