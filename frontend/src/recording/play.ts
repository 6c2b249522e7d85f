// The turns of a recording as a session plays them: the whole tree, of which the page shows the way to the turn that was
// added last.
import type { RecordedTurn as PlayedTurn, Recorded } from "../session/elsewhere";
import type { Meta } from "./meta";
import { nameOf } from "./source";

/** Before the ids of a file's turns: they are not the page's own. */
const PREFIX = "recorded:";

export function playTurns({ turns, runs }: Meta): PlayedTurn[] {
	const recorded = (index: number): Recorded => {
		const { remembered } = runs[index]!;
		return remembered === null ? { name: nameOf(index) } : { text: remembered };
	};
	// Runs without turns are shown as one reply after the other.
	const played =
		turns.length > 0
			? turns
			: runs.map((_, run) => {
					const parent = run === 0 ? null : String(run - 1);
					return { id: String(run), parent, user: "", before: [], run };
				});
	return played.map(({ id, parent, user, before, run }) => ({
		key: PREFIX + id,
		parent: parent === null ? null : PREFIX + parent,
		user,
		before: before.map(recorded),
		run: recorded(run),
	}));
}

/** The recording's id of a turn that is played. */
export function turnIdOf(key: string): string {
	return key.slice(PREFIX.length);
}
