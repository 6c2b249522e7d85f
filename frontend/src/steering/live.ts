// What is known while a run is steered: the stream's projection on a vector, how much of the stream each layer's
// steering added, and whether the reply is breaking. Everything is read from the run's newest row.
import type { MetricInfo, Start, VectorInfo, VectorSetting } from "../protocol/types.gen";
import { MOST_METRICS } from "../session/watch";
import type { Run } from "../store/run";
import { type Damage, damageOf, WINDOW } from "./damage";
import { actsAt } from "./setting";

export const SHARE = "steering_share";
/** Vectors whose projections a run asks for, unless more than these steer it. */
const MOST_WATCHED = 8;
/** More tokens than 20 words ever take in a language with spaces. */
const TAIL_TOKENS = 100;

export const projectionOf = (vector: string) => `projection:${vector}`;
export const projectionBefore = (vector: string) => `projection_before:${vector}`;

type Watched = Required<Pick<Start, "metrics" | "lens" | "entropy">>;

/**
 * What tells how a run is steered is asked for from its start, also with all sliders at 0: what a run is watched
 * with is fixed then, and the first slider may move at any token. Steered vectors come first, and of the others
 * only as many as are cheap. Nothing is asked for that the server does not list.
 */
export function watchSteering(
	watched: Watched,
	metrics: readonly MetricInfo[],
	steered: readonly string[],
	offered: readonly string[],
): Watched {
	if (offered.length === 0) return watched;
	const others = offered.filter((id) => !steered.includes(id));
	const vectors = [...steered, ...others.slice(0, Math.max(0, MOST_WATCHED - steered.length))];
	const works = new Set(metrics.filter(({ error }) => error === null).map(({ id }) => id));
	const wanted = [SHARE, ...vectors.flatMap((id) => [projectionOf(id), projectionBefore(id)])]
		.filter((id) => works.has(id))
		.slice(0, MOST_METRICS);
	const rest = (watched.metrics ?? []).filter((id) => !wanted.includes(id));
	return {
		...watched,
		metrics: [...rest.slice(0, MOST_METRICS - wanted.length), ...wanted],
		entropy: watched.entropy || steered.length > 0,
	};
}

/** Position of the newest row, or null. */
export function lastRow(run: Run): number | null {
	return run.rows.columns > 0 ? run.rows.columns - 1 : null;
}

export interface Projection {
	/** Of the stream after the layer's steering, and before it. Share of the stream's length. */
	after: number;
	before: number | null;
	layer: number;
}

/**
 * The projection on a vector at the last layer where it acts; null when the run is not watched with it, and while its
 * numbers lie on the shelf.
 */
export function projectionNow(run: Run, vector: VectorInfo, setting: VectorSetting): Projection | null {
	const position = lastRow(run);
	if (position === null) return null;
	const layer = actsAt(vector, setting)[1];
	const at = (metric: string) => {
		const value = run.rows.value(metric, position, layer);
		return value != null && Number.isFinite(value) ? value : null;
	};
	const after = at(projectionOf(vector.id));
	return after === null ? null : { after, before: at(projectionBefore(vector.id)), layer };
}

/**
 * Per layer, how long what steering added is against the stream; null when the run is not watched with it, and while its
 * numbers lie on the shelf.
 */
export function shareNow(run: Run): number[] | null {
	const position = lastRow(run);
	if (position === null || !run.rows.carries(SHARE)) return null;
	if (run.rows.value(SHARE, position, 0) === null) return null;
	return Array.from({ length: run.rows.layers }, (_, layer) => {
		const value = run.rows.value(SHARE, position, layer);
		return value != null && Number.isFinite(value) ? value : 0;
	});
}

/** The damage of one run at a time. It remembers whether the run was broken, and works once per change. */
export class DamageMeter {
	/** The run by its id: the meter of a panel must not keep a run that nothing else shows. */
	#run: string | null = null;
	#version = -1;
	#damage: Damage = { repetition: null, entropy: null, broken: false };

	read(run: Run): Damage {
		if (run.id === this.#run && run.changed.version === this.#version) return this.#damage;
		const wasBroken = run.id === this.#run && this.#damage.broken;
		this.#run = run.id;
		this.#version = run.changed.version;
		const count = run.tokens.ids.length;
		let text = "";
		for (let i = Math.max(0, count - TAIL_TOKENS); i < count; i++) text += run.tokens.visibleText(i);
		const entropies: (number | null)[] = [];
		for (let i = Math.max(0, count - WINDOW); i < count; i++) {
			entropies.push(run.entropyBefore(run.tokens.promptLength + i));
		}
		this.#damage = damageOf(text, entropies, wasBroken);
		return this.#damage;
	}
}
