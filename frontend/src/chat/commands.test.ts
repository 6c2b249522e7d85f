import { beforeEach, describe, expect, test } from "vitest";
import { Steering } from "../steering/steering";
import { manualBatch, vectorInfo } from "../testing";
import { parseCommand, runCommand } from "./commands";

const vectors = [
	vectorInfo({
		id: "shakespeare",
		label: "Shakespeare",
		range: [0, 12],
		description: "Early modern English.",
	}),
	vectorInfo({ id: "joy", label: "Plain joy", range: [-0.3, 0.3] }),
	vectorInfo({ id: "joyless", label: "Joyless", range: [-0.3, 0.3] }),
];

let steering: Steering;
beforeEach(() => {
	steering = new Steering(
		() => true,
		{ now: () => 0, setTimeout: () => 0, clearTimeout: () => {} },
		manualBatch(),
	);
});
const say = (text: string) => runCommand(parseCommand(text)!, vectors, steering);

describe("commands in the message box", () => {
	test("a slider that the server has no room for says so", () => {
		steering.limits = { max_vectors: 1, max_strength: 1000 };
		say("/steer joy 0.1");
		expect(say("/steer shakespeare 8")).toBe(
			"This server steers with at most 1 vector at once. Set another slider back to 0 first.",
		);
		expect(steering.strengths()).toEqual({ joy: 0.1 });
	});

	test("a steered demo from its list to its end", () => {
		expect(say("/features").split("\n")[0]).toBe(
			"shakespeare \u00b7 0 (0 to 12) \u00b7 Early modern English.",
		);
		expect(say("/vectors")).toBe(say("/features"));
		expect(say("/active")).toBe("Nothing is steered.");
		expect(say("/steer shakespeare 8")).toBe("Shakespeare is at 8.");
		expect(steering.strengths()).toEqual({ shakespeare: 8 });
		expect(say("/active")).toBe("shakespeare \u00b7 8 (0 to 12)");
		expect(say(" /clear ")).toBe("All sliders are at 0.");
		expect(steering.strengths()).toEqual({});
	});

	test("a vector goes by id, label or how one of them begins", () => {
		expect(say("/steer Shake 1")).toBe("Shakespeare is at 1.");
		expect(say("/steer plain JOY 0.1")).toBe("Plain joy is at 0.1.");
		expect(say("/steer joy -0.1")).toBe("Plain joy is at -0.1.");
		expect(say("/steer jo 0.1")).toBe("Which one: joy, joyless?");
		expect(say("/steer pirate 1")).toBe("There is no vector pirate. /vectors lists them.");
	});

	test("a feature goes by its layer and number", () => {
		const features = [
			vectorInfo({ id: "old", label: "Old words", layers: [28], feature: 8401, range: [-15, 15] }),
			vectorInfo({ id: "one", label: "One", layers: [28], feature: 9, range: [-15, 15] }),
			vectorInfo({ id: "other", label: "Other", layers: [28], feature: 9, range: [-15, 15] }),
		];
		const tell = (text: string) => runCommand(parseCommand(text)!, features, steering);
		expect(tell("/steer 28:8401 15")).toBe("Old words is at 15.");
		expect(steering.strengths()).toEqual({ old: 15 });
		expect(tell("/steer 28:9 1")).toBe("Which one: one, other?");
		expect(tell("/steer 27:8401 1")).toBe("There is no vector 27:8401. /vectors lists them.");
	});

	test("a strength beyond the slider becomes its end; none is the suggested one", () => {
		expect(say("/steer")).toBe("Write /steer NAME STRENGTH, such as /steer joy 0.2.");
		expect(say("/steer 3")).toBe("Write /steer NAME STRENGTH, such as /steer joy 0.2.");
		expect(say("/steer joy much")).toBe("There is no vector joy much. /vectors lists them.");
		expect(steering.strengths()).toEqual({});
		expect(say("/steer joy 8")).toBe("Plain joy is at 0.3, the end of its slider.");
		expect(say("/steer plain joy")).toBe("Plain joy is at 0.3, the end of its slider.");
		expect(say("/steer shakespeare")).toBe("Shakespeare is at 0.5.");
	});

	test("a third word is an operator", () => {
		expect(say("/steer joy 1 ablate")).toBe("Plain joy is at 1 (Ablate).");
		expect(steering.steered().settings).toEqual({ joy: { operator: "ablate" } });
		expect(say("/steer joy 0.2 add")).toBe("Plain joy is at 0.2.");
		expect(say("/steer joy 1 feature_set")).toBe(
			"Plain joy cannot do feature_set; it can do add, add_absolute, ablate, clamp.",
		);
		expect(say("/steer joy 1 clamp")).toBe("A clamp needs bounds. Set them at the slider of Plain joy.");
		expect(steering.strengths()).toEqual({ joy: 0.2 });
	});

	test("other words are no command", () => {
		for (const text of ["hello", "/etc/passwd", "/clearly", "/active volcanoes, which are there?", "", "/"]) {
			expect(parseCommand(text)).toBeNull();
		}
	});
});
