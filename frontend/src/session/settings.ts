// Sampling settings, what is watched and the theme: what a person sets once and finds again, in the lasting store;
// and the system prompt, which goes with the tab. Whatever is found in a store is checked like any other input,
// field by field, so that an old or damaged entry costs at most that one field.
import { type AdapterInfo, SAMPLING_NUMBERS, type Sampling } from "../protocol/types.gen";
import type { Store, Stores } from "./storage";
import { checkTemplate, type TemplateValues } from "./template";
import { checkWatch, defaultWatch, type Watch } from "./watch";

export type NumberName = keyof typeof SAMPLING_NUMBERS;
export type Theme = "system" | "light" | "dark";

export interface Settings {
	numbers: Record<NumberName, number | null>;
	stop: string[];
	system: string;
	/** The LoRA adapter to ask for; null is the base model. It counts where the server has it. */
	adapter: string | null;
	/** What chat templates are told, by name; kept for all models. */
	template: TemplateValues;
	theme: Theme;
	watch: Watch;
}

export const NUMBER_NAMES = Object.keys(SAMPLING_NUMBERS) as NumberName[];
export const MOST_STOP_STRINGS = 8;
export const LONGEST_STOP_STRING = 128;
const KEY = "steersight.settings.v1";
const SYSTEM_KEY = "steersight.system.v1";

export function defaultSettings(): Settings {
	const numbers = Object.fromEntries(NUMBER_NAMES.map((name) => [name, SAMPLING_NUMBERS[name].default]));
	return {
		numbers: numbers as Settings["numbers"],
		stop: [],
		system: "",
		adapter: null,
		template: {},
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

/** The adapter that the next reply is written with: the chosen one, while the server has it. */
export function adapterOf(settings: Settings, adapters: readonly AdapterInfo[]): string | null {
	return adapters.find(({ id }) => id === settings.adapter)?.id ?? null;
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

export function loadSettings({ lasting, tab }: { [name in keyof Stores]: Reading }): Settings {
	const settings = defaultSettings();
	const system = readJson(tab, SYSTEM_KEY);
	if (typeof system === "string") settings.system = system;
	const found = readJson(lasting, KEY);
	if (typeof found !== "object" || found === null) return settings;
	const { numbers, stop, adapter, template, theme, watch } = found as Record<string, unknown>;
	if (typeof numbers === "object" && numbers !== null) {
		for (const name of NUMBER_NAMES) {
			const value = (numbers as Record<string, unknown>)[name];
			if ((typeof value === "number" || value === null) && numberProblem(name, value) === null) {
				settings.numbers[name] = value;
			}
		}
	}
	if (Array.isArray(stop)) settings.stop = stop.filter((one) => typeof one === "string" && one !== "");
	if (typeof adapter === "string") settings.adapter = adapter;
	settings.template = checkTemplate(template);
	if (theme === "light" || theme === "dark") settings.theme = theme;
	settings.watch = checkWatch(watch);
	return settings;
}

/** The system prompt is part of the conversation: it is kept where that is, and goes with it. */
export function saveSettings(
	{ lasting, tab }: { [name in keyof Stores]: Writing },
	settings: Settings,
): void {
	const { system, ...rest } = settings;
	write(lasting, KEY, rest);
	write(tab, SYSTEM_KEY, system);
}

type Reading = Pick<Store, "getItem"> | null;
type Writing = Pick<Store, "setItem"> | null;

function readJson(store: Reading, key: string): unknown {
	try {
		return JSON.parse(store?.getItem(key) ?? "null");
	} catch {
		return null;
	}
}

function write(store: Writing, key: string, value: unknown): void {
	try {
		store?.setItem(key, JSON.stringify(value));
	} catch {
		// Storage may be full or forbidden; the settings then last as long as the page.
	}
}
