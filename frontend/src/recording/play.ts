// Which turns of a recording a page shows. A recording may hold a tree of them; the page shows one way through it, to
// the turn that was added last.
import type { Recorded, RecordedTurn as ShownTurn } from "../session/elsewhere";
import type { Meta, RecordedTurn } from "./meta";
import { nameOf } from "./source";

export function playTurns({ turns, runs }: Meta): ShownTurn[] {
	const recorded = (index: number): Recorded => {
		const { remembered } = runs[index]!;
		return remembered === null ? { name: nameOf(index) } : { text: remembered };
	};
	return newest(turns).map(({ user, before, run }) => ({
		user,
		before: before.map(recorded),
		run: recorded(run),
	}));
}

/** How many replies stand on other branches than the one that is shown. */
export function leftOut({ turns }: Meta): number {
	return turns.length - newest(turns).length;
}

function newest(turns: readonly RecordedTurn[]): RecordedTurn[] {
	const byId = new Map(turns.map((turn) => [turn.id, turn]));
	const way: RecordedTurn[] = [];
	for (let at = turns.at(-1); at !== undefined; at = byId.get(at.parent ?? "")) {
		way.unshift(at);
		if (at.parent === null) break;
	}
	return way;
}
