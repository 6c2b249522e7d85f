// Which experts a layer's router chose for a token, and how much each of them has to do in the run. It all
// comes from rows: the metrics `expert:1`, `expert:2`, ... hold the numbers of the chosen experts, the one of
// the greatest weight first, and `expert_weight:1`, ... their weights.
import type { RowStore } from "./rows";

export interface ChosenExpert {
	expert: number;
	/** What its output was multiplied by. */
	weight: number;
	/** Of the run's tokens that have a row, the share that this expert was chosen for in the layer. */
	load: number;
}

interface Counts {
	received: number;
	tokens: number;
	chosen: Map<number, number>;
}

/** Of one run: a pointer moves more often than rows come. */
const counted = new WeakMap<RowStore, Map<number, Counts>>();

/** The experts of one layer at one position, the one of the greatest weight first; null where none were watched
 * or the layer has none, and while the numbers lie on the shelf. */
export function chosenExperts(rows: RowStore, position: number, layer: number): ChosenExpert[] | null {
	if (rows.state === "shelved") return null;
	const found: ChosenExpert[] = [];
	const { tokens, chosen } = countsOf(rows, layer);
	for (let rank = 1; ; rank++) {
		const expert = rows.value(`expert:${rank}`, position, layer);
		const weight = rows.value(`expert_weight:${rank}`, position, layer);
		if (expert == null || weight == null || Number.isNaN(expert)) break;
		found.push({ expert, weight, load: (chosen.get(expert) ?? 0) / tokens });
	}
	return found.length === 0 ? null : found;
}

function countsOf(rows: RowStore, layer: number): Counts {
	let layers = counted.get(rows);
	if (layers === undefined) {
		layers = new Map();
		counted.set(rows, layers);
	}
	const known = layers.get(layer);
	if (known?.received === rows.received) return known;
	const counts: Counts = { received: rows.received, tokens: 0, chosen: new Map() };
	for (let rank = 1; ; rank++) {
		const metric = `expert:${rank}`;
		if (!rows.carries(metric)) break;
		for (let position = 0; position < rows.columns; position++) {
			const expert = rows.value(metric, position, layer);
			if (expert == null || Number.isNaN(expert)) continue;
			if (rank === 1) counts.tokens += 1;
			counts.chosen.set(expert, (counts.chosen.get(expert) ?? 0) + 1);
		}
	}
	layers.set(layer, counts);
	return counts;
}
