// From a sent number to a place on the colour scale, and to what is shown to the person. "Sent" numbers are
// as the wire carries them (log2 of the value where the metric says so); "display" numbers have the
// transform undone. Colour runs along the sent number, so a log2 metric is coloured by its logarithm.
//
// An end that the metric does not fix is fitted to the data: the 1st and 99th percentile of a sample of all
// rows but position 0, rounded outward to a round step. Position 0 is the attention sink; its norm is many
// times that of any other token and would leave the rest one colour. The fitted range only ever grows, so
// that a colour means the same until the scale visibly changes, and every change redraws the whole map.

import { HALF_VALUES, isFiniteCode } from "../protocol/fp16";
import type { MetricInfo } from "../protocol/types.gen";
import { type Field, valueAt } from "../store/field";
import { CHUNK } from "../store/rows";

export interface Range {
	/** In sent numbers. */
	lo: number;
	hi: number;
}

const SAMPLE = 4096;
const TAIL = 0.01;
/** The range is fitted anew when so large a share of all numbers has come outside it: small against TAIL. */
const TAIL_STEP = TAIL / 4;

export function toDisplay(metric: MetricInfo, sent: number): number {
	return metric.transform === "log2" ? 2 ** sent : sent;
}

export function toSent(metric: MetricInfo, display: number): number {
	return metric.transform === "log2" ? Math.log2(display) : display;
}

/** The fixed ends of a metric in sent numbers; null where the data decide. */
export function fixedEnds(metric: MetricInfo): { lo: number | null; hi: number | null } {
	const end = (display: number | null) => {
		const sent = display === null ? null : toSent(metric, display);
		return sent !== null && Number.isFinite(sent) ? sent : null;
	};
	return { lo: end(metric.scale.lo), hi: end(metric.scale.hi) };
}

/** The 1st and 99th percentile of the finite numbers of positions 1 and later, or null without any that can be read. */
export function percentiles(field: Field): Range | null {
	const { first, layers } = field;
	if (first === null || field.shelved) return null;
	// A prompt without numbers, as the logit lens leaves it, must not use up the sample.
	const start = first * layers;
	const end = field.columns * layers;
	// A stride without a factor in common with the layers visits each in turn instead of the same few.
	let stride = Math.max(1, Math.floor((end - start) / SAMPLE));
	while (commonFactor(stride, layers) > 1) stride++;
	const sample = new Float32Array(Math.ceil((end - start) / stride));
	let size = 0;
	for (let i = start; i < end; i += stride) {
		const value = valueAt(field, Math.floor(i / layers), i % layers);
		if (Number.isFinite(value)) sample[size++] = value;
	}
	if (size === 0) return null;
	const sorted = sample.subarray(0, size).sort();
	const at = (share: number) => sorted[Math.round(share * (size - 1))]!;
	return { lo: at(TAIL), hi: at(1 - TAIL) };
}

function commonFactor(a: number, b: number): number {
	return b === 0 ? a : commonFactor(b, a % b);
}

/** Grow `present` to hold `fit`, ends on round steps; the same object when it already does. */
export function grown(present: Range | null, fit: Range): Range {
	if (present !== null && fit.lo >= present.lo && fit.hi <= present.hi) return present;
	const lo = Math.min(fit.lo, present?.lo ?? Number.POSITIVE_INFINITY);
	const hi = Math.max(fit.hi, present?.hi ?? Number.NEGATIVE_INFINITY);
	const step = roundStep(hi - lo);
	return {
		lo: present !== null && lo === present.lo ? lo : Math.floor(lo / step) * step,
		hi: present !== null && hi === present.hi ? hi : Math.ceil(hi / step) * step,
	};
}

/** About an eighth of the span, as 1, 2 or 5 times a power of ten. */
function roundStep(span: number): number {
	const rough = Math.max(span, 1e-6) / 8;
	const power = 10 ** Math.floor(Math.log10(rough));
	const lead = rough / power;
	return (lead > 5 ? 10 : lead > 2 ? 5 : lead > 1 ? 2 : 1) * power;
}

/** The range of one field over its life. */
export class ScaleFit {
	#fitted: Range | null = null;
	/** Entries of the change log that were looked at. */
	#seen = 0;
	/** Numbers that came, and how many came outside the fitted range since it was last fitted. */
	#numbers = 0;
	#outside = 0;
	#range: Range | null = null;

	constructor(readonly metric: MetricInfo) {}

	/** The range to draw with. A new object means that everything drawn before has the wrong colour. */
	update(field: Field): Range {
		const { lo, hi } = fixedEnds(this.metric);
		if ((lo === null || hi === null) && this.#outgrown(field)) {
			const fit = percentiles(field);
			if (fit !== null) this.#fitted = grown(this.#fitted, fit);
			this.#outside = 0;
		}
		const next = {
			lo: lo ?? this.#fitted?.lo ?? 0,
			hi: hi ?? this.#fitted?.hi ?? (lo ?? 0) + 1,
		};
		if (next.hi <= next.lo) next.hi = next.lo + 1;
		const drawn = legendRange(this.metric, next);
		if (this.#range?.lo !== drawn.lo || this.#range.hi !== drawn.hi) this.#range = drawn;
		return this.#range;
	}

	/**
	 * Whether what came since the last time may have moved a percentile out of the range. Sorting a sample is by far
	 * the most expensive step of a frame, and numbers within the range cannot do that, however many come.
	 */
	#outgrown(field: Field): boolean {
		// What is on the shelf is looked at when it is back.
		if (field.shelved) return false;
		const { changes } = field;
		const fresh = this.#seen < changes.length;
		for (; this.#seen < changes.length; this.#seen++) {
			const { start, end } = changes[this.#seen]!;
			for (let from = Math.max(1, start); from < end; ) {
				const index = Math.floor(from / CHUNK);
				const to = Math.min(end, (index + 1) * CHUNK);
				this.#count(field, index, from, to);
				from = to;
			}
		}
		return this.#fitted === null ? fresh : this.#outside > TAIL_STEP * this.#numbers;
	}

	/** Count the numbers at [from, to), which lie in one chunk. */
	#count(field: Field, index: number, from: number, to: number): void {
		const codes = field.chunk(index);
		if (codes === undefined) return;
		const { lo, hi } = this.#fitted ?? { lo: Number.NEGATIVE_INFINITY, hi: Number.POSITIVE_INFINITY };
		const first = index * CHUNK;
		const end = (to - first) * field.layers;
		for (let i = (from - first) * field.layers; i < end; i++) {
			const code = codes[i]!;
			if (!isFiniteCode(code)) continue;
			const value = HALF_VALUES[code]!;
			this.#numbers += 1;
			if (value < lo || value > hi) this.#outside += 1;
		}
	}
}

/** Place of a sent number on the scale, clamped to [0, 1]. */
export function place(metric: MetricInfo, range: Range, sent: number): number {
	const { lo, hi } = legendRange(metric, range);
	return Math.min(1, Math.max(0, (sent - lo) / (hi - lo)));
}

/**
 * The range that the legend's bar spans: the given one, made symmetric for a diverging scale, where the same step away
 * from the middle is the same step of colour on both sides.
 */
export function legendRange(metric: MetricInfo, range: Range): Range {
	const middle = metric.scale.kind === "diverging" ? metric.scale.mid : null;
	if (middle === null) return range;
	const mid = toSent(metric, middle);
	const half = Math.max(range.hi - mid, mid - range.lo);
	return { lo: mid - half, hi: mid + half };
}

/** Three significant digits, without exponents where people do not expect them. */
export function formatValue(value: number): string {
	if (Number.isNaN(value)) return "not a number";
	if (!Number.isFinite(value)) return value > 0 ? "too large" : "too small";
	const size = Math.abs(value);
	if (size === 0) return "0";
	if (size >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
	if (size >= 1000) return Math.round(value).toLocaleString("en");
	if (size < 0.0005) return value.toExponential(1);
	return Number(value.toPrecision(3)).toString();
}

/** A probability in per cent. */
export function formatShare(probability: number): string {
	if (!Number.isFinite(probability)) return "not known";
	return probability > 0 && probability < 0.001 ? "< 0.1 %" : `${(100 * probability).toFixed(1)} %`;
}
