import type { VectorInfo } from "../protocol/types.gen";
import { OWN_WAY } from "./setting";
import { fitting, type Shared } from "./share";
import type { Steering } from "./steering";

/**
 * Put every slider where a link says that it stands: those that the link does not name go to 0. Returns what a person
 * should know of it, as a sentence, or null.
 */
export function applyShared(
	shared: readonly Shared[],
	steering: Steering,
	vectors: readonly VectorInfo[],
	modelLayers: number,
): string | null {
	const named = (id: string) => shared.find((one) => one.id === id);
	// Those that go to 0 first: they make room for the others.
	for (const { id } of vectors) if (named(id) === undefined) steering.act(id, OWN_WAY, 0);
	for (const vector of vectors) {
		const wanted = named(vector.id);
		if (wanted === undefined) continue;
		const { setting, strength } = fitting(vector, wanted, modelLayers);
		if (!steering.act(vector.id, setting, strength)) break;
	}
	const known = new Set(vectors.map(({ id }) => id));
	const unknown = shared.filter(({ id }) => !known.has(id)).map(({ id }) => id);
	if (unknown.length === 0) return null;
	return `This server has no vector ${unknown.join(", ")}, so that part of the link was left out.`;
}
