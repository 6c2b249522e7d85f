// @vitest-environment happy-dom
// The Steering panel in the whole page: how vectors act, and what is said while they act and is passed on.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { finishedFrame, rowsFrame, startedFrame, tokensFrame } from "../testing";
import { joy, SteeringPage } from "../testing/steeringPage";

let page: SteeringPage;
beforeEach(() => {
	page = new SteeringPage();
	return page.ready();
});
afterEach(() => page.close());

describe("how a vector acts", () => {
	test("is chosen under its slider, moves the bounds and travels with the start", async () => {
		expect(page.text("how-toggle-joy")).toBe("layer 1");
		await page.click("how-toggle-joy");
		const options = [...page.find("operator-joy")!.querySelectorAll("option")].map((one) => one.value);
		expect(options).toEqual(joy.operators);
		await page.fill("operator-joy", "ablate");
		expect(page.text("how-about-joy")).toBe(
			"Takes out what the stream has along the vector. Strength 1 takes out all of it.",
		);
		expect(page.find<HTMLInputElement>("slider-joy")!.max).toBe("1");
		await page.fill("slider-joy", "1");
		await page.fill("scope-joy", "reply");
		await page.fill("first-joy", "8");
		await page.fill("layers-joy", "range");
		await page.fill("from-joy", "0");
		expect(page.text("how-toggle-joy")).toBe("Ablate, reply only, first 8 tokens, layers 0\u20131");
		await page.ask();
		expect(page.starts[0]).toMatchObject({
			strengths: { joy: 1 },
			settings: { joy: { operator: "ablate", scope: "reply", first: 8, layers: [0, 1] } },
		});
		await page.click("own-way-joy");
		expect(page.value("slider-joy")).toBe("0.3");
		await page.say(startedFrame(["p"]));
		expect(page.server.all("steer").at(-1)).toMatchObject({ strengths: { joy: 0.3 }, settings: {} });
	});

	test("chosen elsewhere shows in the open choice, and what is typed here stays as it was typed", async () => {
		await page.click("how-toggle-joy");
		await page.fill("layers-joy", "range");
		expect(page.value("layers-joy")).toBe("range");
		await page.ask("/steer joy 1 ablate");
		expect(page.value("operator-joy")).toBe("ablate");
	});

	test("what cannot be used says why and is not taken", async () => {
		await page.click("how-toggle-joy");
		await page.fill("operator-joy", "clamp");
		expect(page.text("how-about-joy")).toBe("Clamp needs a bound.");
		expect(page.text("how-toggle-joy")).toBe("layer 1");
		await page.fill("hi-joy", "0.1");
		expect(page.text("how-toggle-joy")).toBe("Clamp, at most 0.1");
		await page.fill("layers-joy", "one");
		await page.fill("from-joy", "7");
		expect(page.text("how-about-joy")).toBe("Layers go from 0 to 1.");
		expect(page.text("how-toggle-joy")).toBe("Clamp, at most 0.1, layer 1");
	});
});

describe("while a run is steered", () => {
	async function begin(strength = "0.2") {
		await page.fill("slider-joy", strength);
		await page.ask();
		await page.say(startedFrame(["p"]));
	}
	const row = (start: number, count: number, rev = 0) =>
		rowsFrame(start, count, {
			metrics: ["steering_share", "projection:joy", "projection_before:joy"],
			value: (_, metric, layer) => (metric === 0 ? layer / 4 : metric === 1 ? 0.5 : 0.25),
			rev: () => rev,
			entropy: () => 2,
		});

	test("projection, share per layer, repetition and entropy are shown", async () => {
		expect(page.find("run-signs")).toBeNull();
		await begin();
		expect(page.starts[0]!.metrics).toEqual([
			"norm",
			"steering_share",
			"projection:joy",
			"projection_before:joy",
		]);
		await page.say(
			tokensFrame(
				1,
				Array.from({ length: 14 }, (_, i) => ` word${i}`),
			),
			row(0, 15),
		);
		expect(page.text("projection-joy")).toBe("projection 0.500, before steering 0.250 (layer 1)");
		expect(page.find("steering-share")!.dataset.most).toBe("0.2500");
		expect([page.text("repetition"), page.text("entropy")]).toEqual(["0 %", "2.00 nats"]);
		expect(page.find("projection-calm")).toBeNull();
	});

	test("a reply that breaks is said so at its slider, until it recovers", async () => {
		await begin();
		await page.say(tokensFrame(1, Array(30).fill(" of the")), row(0, 30));
		expect(page.text("breaking-joy")).toBe("This strength is breaking the reply.");
		expect(page.text("breaking")).toBe("This strength is breaking the reply.");
		expect(page.find("breaking")!.getAttribute("aria-live")).toBe("polite");
		await page.say(
			tokensFrame(
				31,
				Array.from({ length: 20 }, (_, i) => ` word${i}`),
			),
		);
		expect([page.text("breaking-joy"), page.text("breaking")]).toEqual([null, ""]);
	});

	test("the next reply begins without a warning", async () => {
		await begin();
		await page.say(tokensFrame(1, Array(30).fill(" of the")));
		await page.say(finishedFrame({ reason: "length" }));
		expect(page.text("breaking-joy")).not.toBeNull();
		await page.ask("And now?");
		expect(page.text("breaking-joy")).toBeNull();
	});

	test("back at 0 explains what stays, and writes on from there in the same reply", async () => {
		await begin();
		await page.say(tokensFrame(1, ["Once"]), row(0, 1));
		await page.fill("slider-joy", "0");
		expect(page.text("left-behind-joy")).toContain(
			"Tokens written under steering stay in the model's memory.",
		);
		await page.click("write-on-joy");
		expect(page.sent.at(-1)).toEqual({ type: "stop", run: "r1" });
		await page.say(finishedFrame({ reason: "cancelled" }));
		const start = page.starts[1]!;
		expect(start).toMatchObject({ write_on: true, strengths: {} });
		expect(start.messages.at(-1)).toEqual({ role: "assistant", content: "Once" });
		await page.say(startedFrame(["p", "Once"], start.id, "r2"), tokensFrame(2, [" more"], undefined, "r2"));
		const reply = page.host.querySelectorAll<HTMLElement>('[data-testid="message-assistant"]');
		expect(reply.length).toBe(1);
		expect(reply[0]!.dataset.run).toBe("r2");
		expect([...reply[0]!.querySelectorAll(".token")].map((one) => one.textContent)).toEqual([
			"Once",
			" more",
		]);
		expect(page.find("left-behind-joy")).toBeNull();
	});
});

test("a link carries the sliders that are not at rest", async () => {
	expect(page.find<HTMLButtonElement>("share")!.disabled).toBe(true);
	const copied: string[] = [];
	vi.stubGlobal("navigator", { clipboard: { writeText: async (link: string) => void copied.push(link) } });
	await page.fill("slider-joy", "0.25");
	await page.click("share");
	expect(copied[0]).toMatch(/#s=joy,0\.25$/);
	expect(page.text("share")).toContain("Link copied");
	await page.fill("slider-joy", "0.1");
	expect(page.text("share")).toContain("Share");
});

test("commands act on the sliders, are answered in the chat and never sent", async () => {
	await page.ask("/steer joy 0.2");
	expect(page.value("slider-joy")).toBe("0.2");
	expect(page.text("aside")).toBe("/steer joy 0.2Joy is at 0.2.");
	expect(page.value("prompt-input")).toBe("");
	expect(page.starts).toEqual([]);
	await page.ask();
	expect(page.starts[0]!.messages).toEqual([{ role: "user", content: "Hello?" }]);
});
