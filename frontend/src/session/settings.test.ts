import { describe, expect, test } from "vitest";
import {
	defaultSettings,
	formatStops,
	loadSettings,
	NUMBER_NAMES,
	numberProblem,
	parseStops,
	saveSettings,
	toSampling,
} from "./settings";

function store(content: string | null = null) {
	let kept = content;
	return {
		getItem: () => kept,
		setItem: (_: string, value: string) => {
			kept = value;
		},
	};
}

const storage = (content: string) => ({ lasting: store(content), tab: store(content) });

describe("settings", () => {
	test("come back as they were kept", () => {
		const settings = {
			...defaultSettings(),
			system: "Be brief.",
			stop: ["\n\n", "END"],
			adapter: "poet",
			theme: "dark" as const,
		};
		settings.watch.families.parts = true;
		settings.watch.stride = 8;
		settings.numbers.temperature = 0;
		settings.numbers.seed = 42;
		const stores = { lasting: store(), tab: store() };
		saveSettings(stores, settings);
		expect(loadSettings(stores)).toEqual(settings);
	});

	test("the system prompt is kept with the tab's conversation and nowhere else", () => {
		const stores = { lasting: store('{"system": "Of an earlier version."}'), tab: store() };
		expect(loadSettings(stores).system).toBe("");
		saveSettings(stores, { ...defaultSettings(), system: "My salary is" });
		expect(stores.lasting.getItem()).not.toMatch(/salary|earlier version/);
		expect(loadSettings({ ...stores, tab: store() }).system).toBe("");
	});

	test.each([
		"",
		"{",
		"7",
		"null",
		"[]",
		'{"numbers": 3, "stop": "x", "system": 4, "theme": "pink", "watch": 1}',
	])("damaged content %j gives the defaults", (content) => {
		expect(loadSettings(storage(content))).toEqual(defaultSettings());
	});

	test("one bad field costs only itself", () => {
		const found = loadSettings(
			storage('{"numbers": {"top_p": 7, "top_k": 5}, "watch": {"stride": 3, "entropy": false}}'),
		);
		expect(found.numbers.top_p).toBe(defaultSettings().numbers.top_p);
		expect(found.numbers.top_k).toBe(5);
		expect(found.watch).toEqual({ ...defaultSettings().watch, entropy: false });
	});

	test("storage that is missing or full is no error", () => {
		expect(loadSettings({ lasting: null, tab: null })).toEqual(defaultSettings());
		const full = {
			setItem: () => {
				throw new Error("full");
			},
		};
		expect(() => saveSettings({ lasting: full, tab: full }, defaultSettings())).not.toThrow();
	});

	test("defaults can be sent; what is out of bounds says why", () => {
		const settings = defaultSettings();
		for (const name of NUMBER_NAMES) expect(numberProblem(name, settings.numbers[name])).toBeNull();
		expect(toSampling(settings)).toMatchObject({ max_tokens: 256, temperature: 0.7, seed: null, stop: [] });
		expect(numberProblem("top_p", 0)).toBe("It must be more than 0.");
		expect(numberProblem("top_p", 1.1)).toBe("It must be at most 1.");
		expect(numberProblem("max_tokens", 0)).toBe("It must be at least 1.");
		expect(numberProblem("max_tokens", 1.5)).toBe("A whole number is needed here.");
		expect(numberProblem("temperature", null)).toBe("A number is needed here.");
		expect(numberProblem("temperature", Number.NaN)).toBe("This is not a number.");
		expect(numberProblem("seed", 2 ** 60)).not.toBeNull();
	});

	test("stop strings are lines, with room for line breaks inside", () => {
		expect(parseStops("END\n\n\\n\\nUser:\n")).toEqual(["END", "\n\nUser:"]);
		expect(parseStops(formatStops(["\n", "a\tb"]))).toEqual(["\n", "a\tb"]);
		expect(parseStops(`${"x\n".repeat(20)}${"y".repeat(200)}`).length).toBe(8);
	});
});
