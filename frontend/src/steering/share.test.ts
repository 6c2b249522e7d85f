import { describe, expect, test } from "vitest";
import { chance, vectorInfo } from "../testing";
import { OPERATOR_WORDS, type Operator, OWN_WAY, type Scope } from "./setting";
import {
	fitting,
	fromFragment,
	LONGEST,
	MOST_VECTORS,
	type Shared,
	sharedOf,
	shareLink,
	toFragment,
} from "./share";

const joy: Shared = { id: "joy", strength: 0.2, setting: OWN_WAY };
const french: Shared = {
	id: "french",
	strength: -0.1,
	setting: { operator: "clamp", lo: -0.1, hi: 0.25, scope: "reply", first: 8, layers: [3, 9] },
};
const TEXT = "joy,0.2;french,-0.1,op=clamp,scope=reply,first=8,layers=3-9,lo=-0.1,hi=0.25";

describe("a shared link", () => {
	test("reads as it is written", () => {
		expect(toFragment([joy, french])).toBe(TEXT);
		expect(fromFragment(TEXT)).toEqual([joy, french]);
	});

	test("carries no slider that says nothing, and nothing that stood in the address", () => {
		const sliders = sharedOf([vectorInfo(), vectorInfo({ id: "calm" })], { joy: 0.2 }, () => OWN_WAY);
		expect(shareLink("https://lab:8000/?x=1#watch=r7", sliders)).toBe("https://lab:8000/?x=1#s=joy,0.2");
	});

	test.each([
		"",
		"joy",
		"joy,",
		"joy,NaN",
		"joy,1e9",
		"joy,0x10",
		"joy, 0.2",
		"joy,99999",
		"joy,0.2;",
		"joy,0.2;joy,0.3",
		"joy,0.2,op=eval",
		"joy,0.2,op=toString",
		"joy,0.2,__proto__=1",
		"joy,0.2,scope=all",
		"joy,0.2,first=0",
		"joy,0.2,first=8,first=9",
		"joy,0.2,layers=9-3",
		"joy,0.2,layers=1-2-3",
		"joy,0.2,lo=",
		"joy,0.2,",
		"<b>,0.2",
		`${"x".repeat(65)},0.2`,
		Array.from({ length: MOST_VECTORS + 1 }, (_, i) => `v${i},1`).join(";"),
		`joy,0.2${",".repeat(LONGEST)}`,
	])("that reads %j means nothing", (text) => {
		expect(fromFragment(text)).toBeNull();
	});

	test("whatever sliders there are, what is written is read back the same", () => {
		const random = chance(5);
		const of = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)]!;
		const hundredth = () => Math.round((random() - 0.5) * 4000) / 100;
		const operators = [null, ...(Object.keys(OPERATOR_WORDS) as Operator[])];
		for (let round = 0; round < 500; round++) {
			const sliders: Shared[] = Array.from({ length: 1 + Math.floor(random() * 5) }, (_, i) => ({
				id: `v${i}.${round}`,
				strength: hundredth() || 0.5,
				setting: {
					operator: of(operators),
					scope: of<Scope>(["both", "prompt", "reply"]),
					first: of([null, 1, 40]),
					layers: of([null, [0, 0], [2, 29]] as const) as [number, number] | null,
					lo: of([null, hundredth()]),
					hi: of([null, hundredth()]),
				},
			}));
			expect(fromFragment(toFragment(sliders))).toEqual(sliders);
		}
	});

	test("whatever characters it holds, it is read or refused and nothing is thrown", () => {
		const random = chance(9);
		const alphabet = "joy,;=-.0129opscfrltaye#&%\u0000\ud83d\u00e9<\"'";
		for (let round = 0; round < 5000; round++) {
			// Half of them are a right text with some characters changed.
			const letters =
				round % 2 === 0 ? [...TEXT] : Array.from({ length: Math.floor(random() * 60) }, () => "");
			const changes = round % 2 === 0 ? 1 + Math.floor(random() * 3) : letters.length;
			for (let i = 0; i < changes; i++) {
				const at = round % 2 === 0 ? Math.floor(random() * letters.length) : i;
				letters[at] = alphabet[Math.floor(random() * alphabet.length)]!;
			}
			for (const { id, strength, setting } of fromFragment(letters.join("")) ?? []) {
				expect(id).toMatch(/^[A-Za-z0-9_.:-]{1,64}$/);
				expect(Math.abs(strength)).toBeLessThan(10_000);
				expect(Object.keys(setting).sort()).toEqual(Object.keys(OWN_WAY).sort());
			}
		}
	});

	test("is fitted to the slider: its bounds, its operators, this model's layers", () => {
		const vector = vectorInfo({ id: "french", range: [-0.3, 0.3] });
		expect(fitting(vector, { ...joy, strength: 5 }, 30)).toEqual({
			id: "french",
			strength: 0.3,
			setting: OWN_WAY,
		});
		expect(fitting(vector, french, 30).setting).toEqual(french.setting);
		expect(fitting(vector, french, 8).setting).toEqual(OWN_WAY);
		const set = { ...OWN_WAY, operator: "feature_set" as const };
		expect(fitting(vector, { ...joy, strength: 9, setting: set }, 30)).toEqual({
			id: "french",
			strength: 0.3,
			setting: OWN_WAY,
		});
	});
});
