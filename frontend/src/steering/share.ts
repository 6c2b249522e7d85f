// A link that carries sliders and nothing else. Its fragment, which never leaves the browser, reads
//
//     #s=joy,0.2;french,-0.1,op=ablate,scope=reply,first=8,layers=3-9,lo=-0.1,hi=0.2
//
// Whatever a link holds is somebody else's input: it is read strictly and within limits, and one wrong character
// makes it mean nothing at all rather than something else.
import type { VectorInfo } from "../protocol/types.gen";
import type { Strengths } from "./setting";
import {
	boundsOf,
	MOST_FIRST,
	normal,
	OPERATOR_WORDS,
	type Operator,
	OWN_WAY,
	SCOPE_WORDS,
	type Scope,
	type Setting,
	settingProblem,
	toWire,
	withinBounds,
} from "./setting";

export const LONGEST = 4096;
/** As many vectors as a start may name. */
export const MOST_VECTORS = 32;
const MOST_LAYER = 10_000;

export interface Shared {
	id: string;
	strength: number;
	setting: Setting;
}

const ID = /^[A-Za-z0-9_.:-]{1,64}$/;
const NUMBER = /^-?\d{1,4}(\.\d{1,6})?$/;
const COUNT = /^\d{1,7}$/;

/** Sliders as a fragment's value; empty when none has anything to say. */
export function toFragment(sliders: readonly Shared[]): string {
	return sliders
		.filter(({ strength, setting }) => strength !== 0 || toWire(setting) !== null)
		.map(({ id, strength, setting }) => [id, digits(strength), ...fields(setting)].join(","))
		.slice(0, MOST_VECTORS)
		.join(";");
}

/** The sliders of a fragment's value, or null when it is not exactly one. */
export function fromFragment(text: string): Shared[] | null {
	if (text.length === 0 || text.length > LONGEST) return null;
	const parts = text.split(";");
	if (parts.length > MOST_VECTORS) return null;
	const found: Shared[] = [];
	for (const part of parts) {
		const one = slider(part);
		if (one === null || found.some(({ id }) => id === one.id)) return null;
		found.push(one);
	}
	return found;
}

/** Address of this page with the sliders in it and nothing that was in its fragment. */
export function shareLink(page: string, sliders: readonly Shared[]): string {
	return `${page.split("#")[0]}#s=${toFragment(sliders)}`;
}

/** What a slider can take of what was shared: its operators, its bounds, this model's layers. */
export function fitting(vector: VectorInfo, shared: Shared, modelLayers: number): Shared {
	const wanted = normal(vector, shared.setting);
	const setting = settingProblem(vector, wanted, modelLayers) === null ? wanted : OWN_WAY;
	return { id: vector.id, setting, strength: withinBounds(boundsOf(vector, setting), shared.strength) };
}

/** Those that are not 0 or do not act in their own way. */
export function sharedOf(
	vectors: readonly VectorInfo[],
	strengths: Strengths,
	setting: (id: string) => Setting,
): Shared[] {
	return vectors.map(({ id }) => ({ id, strength: strengths[id] ?? 0, setting: setting(id) }));
}

function fields(setting: Setting): string[] {
	const { operator, scope, first, layers, lo, hi } = setting;
	const out: string[] = [];
	if (operator !== null) out.push(`op=${operator}`);
	if (scope !== "both") out.push(`scope=${scope}`);
	if (first !== null) out.push(`first=${first}`);
	if (layers !== null) out.push(`layers=${layers[0]}-${layers[1]}`);
	if (lo !== null) out.push(`lo=${digits(lo)}`);
	if (hi !== null) out.push(`hi=${digits(hi)}`);
	return out;
}

function digits(value: number): string {
	return String(Number(value.toFixed(6)) || 0);
}

function slider(text: string): Shared | null {
	const [id = "", strength = "", ...rest] = text.split(",");
	const value = number(strength);
	if (!ID.test(id) || value === null) return null;
	const setting: Setting = { ...OWN_WAY };
	const seen = new Set<string>();
	for (const field of rest) {
		const at = field.indexOf("=");
		const name = field.slice(0, at);
		if (at < 1 || seen.has(name) || !put(setting, name, field.slice(at + 1))) return null;
		seen.add(name);
	}
	return { id, strength: value, setting: seen.size === 0 ? OWN_WAY : setting };
}

function put(setting: Setting, name: string, text: string): boolean {
	switch (name) {
		case "op":
			if (!Object.hasOwn(OPERATOR_WORDS, text)) return false;
			setting.operator = text as Operator;
			return true;
		case "scope":
			if (!Object.hasOwn(SCOPE_WORDS, text)) return false;
			setting.scope = text as Scope;
			return true;
		case "first":
			setting.first = count(text, 1, MOST_FIRST);
			return setting.first !== null;
		case "layers": {
			const [first, last, more] = text.split("-").map((one) => count(one, 0, MOST_LAYER));
			if (first == null || last == null || more !== undefined || first > last) return false;
			setting.layers = [first, last];
			return true;
		}
		case "lo":
			setting.lo = number(text);
			return setting.lo !== null;
		case "hi":
			setting.hi = number(text);
			return setting.hi !== null;
	}
	return false;
}

function number(text: string): number | null {
	return NUMBER.test(text) ? Number(text) || 0 : null;
}

function count(text: string, least: number, most: number): number | null {
	const value = COUNT.test(text) ? Number(text) : null;
	return value !== null && value >= least && value <= most ? value : null;
}
