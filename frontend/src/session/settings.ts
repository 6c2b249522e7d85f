// Sampling settings, what is watched, the system prompt and the theme: what a person sets once and finds again. They are
// kept in localStorage; whatever is found there is checked like any other input, field by field, so that an
// old or damaged entry costs at most that one field.
import { SAMPLING_NUMBERS, type Sampling } from "../protocol/types.gen";
import { checkWatch, defaultWatch, type Watch } from "./watch";

export type NumberName = keyof typeof SAMPLING_NUMBERS;
export type Theme = "system" | "light" | "dark";

export interface Settings {
	numbers: Record<NumberName, number | null>;
	stop: string[];
	system: string;
	theme: Theme;
	watch: Watch;
}

export const NUMBER_NAMES = Object.keys(SAMPLING_NUMBERS) as NumberName[];
export const MOST_STOP_STRINGS = 8;
export const LONGEST_STOP_STRING = 128;
const KEY = "steersight.settings.v1";

export function defaultSettings(): Settings {
	const numbers = Object.fromEntries(NUMBER_NAMES.map((name) => [name, SAMPLING_NUMBERS[name].default]));
	return {
		numbers: numbers as Settings["numbers"],
		stop: [],
		system: "",
		theme: "system",
		watch: defaultWatch(),
	};
}

/** Why a number cannot be sent, as a sentence, or null when it can. Only the seed may be empty. */
export function numberProblem(name: NumberName, value: number | null): string | null {
	const limit = SAMPLING_NUMBERS[name];
	if (value === null) return limit.default === null ? null : "A number is needed here.";
	if (!Number.isFinite(value)) return "This is not a number.";
	if (limit.integer && !Number.isInteger(value)) return "A whole number is needed here.";
	if (limit.exclusiveMin ? value <= limit.min : value < limit.min) {
		return limit.exclusiveMin ? `It must be more than ${limit.min}.` : `It must be at least ${limit.min}.`;
	}
	return value > limit.max ? `It must be at most ${limit.max}.` : null;
}

export function toSampling(settings: Settings): Sampling {
	return { ...(settings.numbers as Sampling), stop: settings.stop };
}

/** One stop string per line; a written \n or \t stands for the character. */
export function parseStops(text: string): string[] {
	return text
		.split("\n")
		.map((line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t"))
		.filter((line) => line !== "" && line.length <= LONGEST_STOP_STRING)
		.slice(0, MOST_STOP_STRINGS);
}

export function formatStops(stops: readonly string[]): string {
	return stops.map((stop) => stop.replaceAll("\n", "\\n").replaceAll("\t", "\\t")).join("\n");
}

export function loadSettings(storage: Pick<Storage, "getItem"> | null): Settings {
	const settings = defaultSettings();
	let found: unknown;
	try {
		found = JSON.parse(storage?.getItem(KEY) ?? "null");
	} catch {
		return settings;
	}
	if (typeof found !== "object" || found === null) return settings;
	const { numbers, stop, system, theme, watch } = found as Record<string, unknown>;
	if (typeof numbers === "object" && numbers !== null) {
		for (const name of NUMBER_NAMES) {
			const value = (numbers as Record<string, unknown>)[name];
			if ((typeof value === "number" || value === null) && numberProblem(name, value) === null) {
				settings.numbers[name] = value;
			}
		}
	}
	if (Array.isArray(stop)) settings.stop = stop.filter((one) => typeof one === "string" && one !== "");
	if (typeof system === "string") settings.system = system;
	if (theme === "light" || theme === "dark") settings.theme = theme;
	settings.watch = checkWatch(watch);
	return settings;
}

export function saveSettings(storage: Pick<Storage, "setItem"> | null, settings: Settings): void {
	try {
		storage?.setItem(KEY, JSON.stringify(settings));
	} catch {
		// Storage may be full or forbidden; the settings then last as long as the page.
	}
}

/** The page's storage, or null where the browser forbids it. */
export function pageStorage(): Storage | null {
	try {
		return window.localStorage;
	} catch {
		return null;
	}
}

/** What lasts as long as this tab, also over a reload; null where the browser forbids it. */
export function tabStorage(): Storage | null {
	try {
		return window.sessionStorage;
	} catch {
		return null;
	}
}
