// What a revision changed, in words, for the marks where it came into force: "French 0.25".
import type { Run, Steered } from "./run";

/** So many changes are named; of more it is said how many. */
const NAMED = 2;

/** The name of a slider, by its id. */
export type LabelOf = (id: string) => string;

/** "French 0.25, Joy 0", or "rev 3" where it is not known what revision 3 changed. */
export function revisionText(run: Pick<Run, "began" | "applied">, rev: number, labelOf: LabelOf): string {
	const unknown = `rev ${rev}`;
	const at = run.applied.findIndex((one) => one.rev === rev);
	const now = run.applied[at]?.steered ?? null;
	const before = at > 0 ? run.applied[at - 1]!.steered : run.began;
	if (now === null || before === null) return unknown;
	const changes = changed(before, now).map(({ id, strength }) =>
		strength === null ? `${labelOf(id)} otherwise` : `${labelOf(id)} ${strength}`,
	);
	if (changes.length === 0) return unknown;
	const more = changes.length - NAMED;
	return `${changes.slice(0, NAMED).join(", ")}${more > 0 ? ` +${more}` : ""}`;
}

/** Per slider that is not what it was its strength; null where only how it acts is another. */
function changed(before: Steered, now: Steered): { id: string; strength: number | null }[] {
	const ids = [...new Set([...Object.keys(now.strengths), ...Object.keys(before.strengths)])];
	const found: { id: string; strength: number | null }[] = [];
	for (const id of ids) {
		const [old, strength] = [before.strengths[id] ?? 0, now.strengths[id] ?? 0];
		if (strength !== old) found.push({ id, strength: Math.round(strength * 1000) / 1000 });
		else if (strength !== 0 && !alike(before.settings[id], now.settings[id])) {
			found.push({ id, strength: null });
		}
	}
	return found;
}

function alike(one: unknown, other: unknown): boolean {
	return JSON.stringify(one ?? {}) === JSON.stringify(other ?? {});
}
