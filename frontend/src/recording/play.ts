// Which turns of a recording a page shows. A recording may hold a tree of them; the page shows one way through it, to
// the turn that was added last.
import type { Recorded, RecordedTurn as ShownTurn } from "../session/elsewhere";
import type { Meta, RecordedTurn } from "./meta";
import { nameOf } from "./source";

export function playTurns(meta: Meta): ShownTurn[] {
	const { runs } = meta;
	const recorded = (index: number): Recorded => {
		const { remembered } = runs[index]!;
		return remembered === null ? { name: nameOf(index) } : { text: remembered };
	};
	return newestTurns(meta).map(({ user, before, run }) => ({
		user,
		before: before.map(recorded),
		run: recorded(run),
	}));
}

/** How many replies stand on other branches than the one that is shown. */
export function leftOut(meta: Meta): number {
	return Math.max(0, meta.turns.length - newestTurns(meta).length);
}

/** The turns that are shown. A recording of runs without turns is shown as one reply after the other. */
export function newestTurns({ turns, runs }: Meta): RecordedTurn[] {
	if (turns.length === 0) {
		return runs.map((_, run) => ({ id: String(run), parent: null, user: "", before: [], run }));
	}
	const byId = new Map(turns.map((turn) => [turn.id, turn]));
	const way: RecordedTurn[] = [];
	for (let at = turns.at(-1); at !== undefined; at = byId.get(at.parent ?? "")) {
		way.unshift(at);
		if (at.parent === null) break;
	}
	return way;
}
