// Vectors that a server no longer has, as a person should hear of them: only where it concerns a slider that was
// set or a projection on the map.
import type { MetricInfo, VectorInfo } from "../protocol/types.gen";
import { projectionBefore, projectionOf } from "../steering/live";

/** The vectors of `before` that acted or were looked at, and are not among `now`. */
export function missed(
	before: readonly VectorInfo[],
	now: readonly VectorInfo[],
	acts: (vector: string) => boolean,
	metric: string | null,
): { vectors: VectorInfo[]; shown: boolean } {
	const shows = ({ id }: VectorInfo) => metric === projectionOf(id) || metric === projectionBefore(id);
	const gone = before.filter(({ id }) => !now.some((vector) => vector.id === id));
	return { vectors: gone.filter((one) => acts(one.id) || shows(one)), shown: gone.some(shows) };
}

/** What to say of them, or null. `metric` is what the map shows now. */
export function goneSentence(
	{ vectors, shown }: ReturnType<typeof missed>,
	metric: MetricInfo | undefined,
): string | null {
	const labels = vectors.map(({ label }) => label);
	if (labels.length === 0) return null;
	const sliders =
		labels.length === 1
			? `${labels[0]} is no longer on this server, so its slider is gone.`
			: `${labels.slice(0, -1).join(", ")} and ${labels.at(-1)} are no longer on this server, so their sliders are gone.`;
	return shown && metric !== undefined
		? `${sliders} The map shows ${metric.label} in place of its projection.`
		: sliders;
}
