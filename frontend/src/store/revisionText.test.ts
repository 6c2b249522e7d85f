import { describe, expect, it } from "vitest";
import { revisionText } from "./revisionText";
import type { Revision, Steered } from "./run";

const LABELS: Record<string, string> = { french: "French", joy: "Joy" };
const labelOf = (id: string) => LABELS[id] ?? id;

function steered(strengths: Record<string, number>, settings: Steered["settings"] = {}): Steered {
	return { strengths, settings };
}

function run(began: Steered | null, ...states: (Steered | null)[]) {
	const applied: Revision[] = states.map((one, index) => ({ rev: index + 1, position: index, steered: one }));
	return { began, applied };
}

describe("revisionText", () => {
	it("names what changed against the revision before", () => {
		const two = run(steered({}), steered({ french: 0.25 }), steered({ french: 0.25, joy: -0.1 }));
		expect(revisionText(two, 1, labelOf)).toBe("French 0.25");
		expect(revisionText(two, 2, labelOf)).toBe("Joy -0.1");
	});

	it("says 0 of what is off now, and rounds what a pointer has made", () => {
		const off = run(steered({ french: 0.25 }), steered({}), steered({ joy: 0.123456 }));
		expect(revisionText(off, 1, labelOf)).toBe("French 0");
		expect(revisionText(off, 2, labelOf)).toBe("Joy 0.123");
	});

	it("names two, and says how many more there are", () => {
		const many = run(steered({}), steered({ french: 1, joy: 2, a: 3, b: 4 }));
		expect(revisionText(many, 1, labelOf)).toBe("French 1, Joy 2 +2");
	});

	it("tells of a slider that only acts otherwise", () => {
		const other = run(steered({ joy: 0.1 }), steered({ joy: 0.1 }, { joy: { scope: "reply" } }));
		expect(revisionText(other, 1, labelOf)).toBe("Joy otherwise");
	});

	it("gives the number where the server has not said, or nothing changed", () => {
		expect(revisionText(run(null, steered({ joy: 1 })), 1, labelOf)).toBe("rev 1");
		expect(revisionText(run(steered({}), null), 1, labelOf)).toBe("rev 1");
		expect(revisionText(run(steered({}), steered({})), 1, labelOf)).toBe("rev 1");
		expect(revisionText(run(steered({})), 4, labelOf)).toBe("rev 4");
	});
});
