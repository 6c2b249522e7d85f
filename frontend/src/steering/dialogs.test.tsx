// @vitest-environment happy-dom
// How vectors are made, brought, shown and deleted, in the whole page.
import { act } from "react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { engineFrame, startedFrame, vectorInfo } from "../testing";
import { joy, offers, own, SteeringPage } from "../testing/steeringPage";

let page: SteeringPage;
beforeEach(() => {
	page = new SteeringPage();
	return page.ready();
});
afterEach(() => page.close());

describe("a new slider", () => {
	const result = {
		vector: vectorInfo({ id: "brave", label: "Brave", own: true }),
		layer: 1,
		range: [-0.2, 0.25],
		suggested: 0.15,
		separation: [
			{ layer: 0, score: 0.6 },
			{ layer: 1, score: 0.95 },
		],
		sweep: [
			{ strength: -0.2, effect: -0.5, damage: 0.1, sample: "I would rather not." },
			{ strength: 0.15, effect: 0.4, damage: 0.05, sample: "Forward!" },
		],
	};
	const state = (changes: object) => ({
		job: "j1",
		state: "running",
		stage: "Reading topic 3 of 12.",
		progress: 0.25,
		error: null,
		result: null,
		...changes,
	});

	async function begin() {
		await page.click("new-slider");
		expect(page.find<HTMLDialogElement>("new-slider-dialog")!.open).toBe(true);
		expect(page.find<HTMLButtonElement>("new-slider-go")!.disabled).toBe(true);
		await page.fill("new-slider-name", "Brave");
		await page.fill("new-slider-more", "You are brave.");
		await page.fill("new-slider-less", "You are timid.");
		page.answers["POST api/vectors/build"] = { job: "j1" };
		await page.click("new-slider-go");
	}

	test("is made, looked at and used", async () => {
		await begin();
		expect(page.asked[0]!.body).toBe(
			JSON.stringify({
				label: "Brave",
				positive: "You are brave.",
				negative: "You are timid.",
				adapter: null,
			}),
		);
		page.answers["GET api/vectors/build/j1"] = state({});
		await page.tick();
		expect(page.text("build-stage")).toBe("Reading topic 3 of 12.");
		page.answers["GET api/vectors/build/j1"] = state({ state: "done", result });
		await page.tick();
		expect(page.find("build-separation")!.getAttribute("aria-label")).toBe(
			"Separation per layer. Layer 1 was chosen. It tells 95 % of held-out pairs apart.",
		);
		expect(page.text("build-samples")).toContain("Forward!");
		await page.say(engineFrame({ ...offers, vectors: [joy, own, result.vector] }));
		await page.click("build-use");
		expect(page.find("new-slider-dialog")).toBeNull();
		expect(page.value("slider-brave")).toBe("0.15");
		expect(page.find("build-line")).toBeNull();
	});

	test("goes on with its dialog closed; a line in the panel shows it and opens it again", async () => {
		await begin();
		page.answers["GET api/vectors/build/j1"] = state({});
		await page.click("new-slider-dialog-close");
		await page.tick();
		expect(page.text("build-line")).toContain("Brave: Reading topic 3 of 12.");
		await page.click("build-open");
		expect(page.find("building")).not.toBeNull();
		page.answers["DELETE api/vectors/build/j1"] = null;
		await page.click("build-cancel");
		page.answers["GET api/vectors/build/j1"] = state({ state: "cancelled" });
		await page.tick();
		expect(page.text("new-slider-dialog")).toContain("The build was cancelled.");
		expect(page.value("new-slider-more")).toBe("You are brave.");
	});

	test("from example texts sends lists of lines; a refusal is the server's sentence", async () => {
		await page.click("new-slider");
		await page.click("new-slider-examples");
		await page.fill("new-slider-name", "Brave");
		await page.fill("new-slider-more", "Onward!\n\n We hold. ");
		await page.fill("new-slider-less", "Let us wait.");
		page.answers["POST api/vectors/build"] = { error: "Each side needs at least 4 texts." };
		await page.click("new-slider-go");
		expect(JSON.parse(page.asked[0]!.body as string)).toEqual({
			label: "Brave",
			positive: ["Onward!", "We hold."],
			negative: ["Let us wait."],
			adapter: null,
		});
		expect(page.text("new-slider-dialog")).toContain("Each side needs at least 4 texts.");
	});
});

describe("an import", () => {
	const report = {
		format: "repeng / llama.cpp control vector (GGUF)",
		found: ["Directions for 2 layers."],
		problems: ["Layer 9 is left out: this model has 2 layers."],
		vectors: [vectorInfo({ id: "honest", label: "Honest", layers: [0, 1] })],
	};
	async function choose(file: File) {
		const input = page.find<HTMLInputElement>("import-file")!;
		await act(async () => {
			Object.defineProperty(input, "files", { value: [file], configurable: true });
			input.dispatchEvent(new Event("change", { bubbles: true }));
		});
	}

	test("is tried first, then added", async () => {
		await page.click("import");
		page.answers["POST api/vectors?name=honest.gguf&try=1"] = report;
		await choose(new File(["GGUF"], "honest.gguf"));
		expect(page.text("import-report")).toContain("Directions for 2 layers.");
		expect(page.text("import-problems")).toBe("Layer 9 is left out: this model has 2 layers.");
		expect(page.text("import-vectors")).toBe("Fits this model: Honest (layers 0\u20131).");
		page.answers["POST api/vectors?name=honest.gguf"] = report;
		await page.click("import-add");
		expect(page.text("import-added")).toBe("The slider is in the Steering panel.");
		expect(page.asked.map(({ path }) => path)).toEqual([
			"api/vectors?name=honest.gguf&try=1",
			"api/vectors?name=honest.gguf",
		]);
	});

	test("of what does not fit is the server's sentence, and another file can be chosen", async () => {
		await page.click("import");
		page.answers["POST api/vectors?name=x.pt&try=1"] = { error: "x.pt is a pickle, which could run code." };
		await choose(new File(["x"], "x.pt"));
		expect(page.text("import-dialog")).toContain("x.pt is a pickle, which could run code.");
		expect(page.find("import-add")).toBeNull();
		expect(page.find<HTMLInputElement>("import-file")!.disabled).toBe(false);
	});

	test("of a huge file is refused before it travels", async () => {
		await page.click("import");
		const huge = new File([], "huge.gguf");
		Object.defineProperty(huge, "size", { value: 65 * 1024 * 1024 });
		await choose(huge);
		expect(page.text("import-dialog")).toContain("huge.gguf is larger than 64 MiB.");
		expect(page.asked).toEqual([]);
	});
});

describe("a vector's card", () => {
	test("tells how it was made and offers its file; a bundled one cannot be deleted", async () => {
		page.answers["GET api/vectors/joy"] = {
			info: joy,
			provenance: { method: "difference in means", topics: ["rain", "tea"], date: null },
			file_bytes: 3000,
		};
		await page.click("card-toggle-joy");
		expect(page.text("provenance")).toBe("methoddifference in meanstopicsrain\ntea");
		expect(page.text("vector-card")).toContain("3 KiB");
		page.answers["GET api/vectors/joy/file"] = { any: "bytes" };
		const saved: string[] = [];
		vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
			saved.push(this.download, this.href.slice(0, 5));
		});
		await page.click("vector-download");
		expect(page.asked.at(-1)).toMatchObject({ method: "GET", path: "api/vectors/joy/file" });
		expect(saved).toEqual(["joy.safetensors", "blob:"]);
		vi.restoreAllMocks();
		expect(page.find("vector-delete")).toBeNull();
	});

	test("of an own one deletes it after a second word", async () => {
		page.answers["GET api/vectors/calm"] = { info: own, provenance: {}, file_bytes: 3_000_000 };
		await page.click("card-toggle-calm");
		await page.click("vector-delete");
		expect(page.asked.some(({ method }) => method === "DELETE")).toBe(false);
		page.answers["DELETE api/vectors/calm"] = null;
		await page.click("vector-delete-sure");
		expect(page.asked.at(-1)).toMatchObject({ method: "DELETE", path: "api/vectors/calm" });
		expect(page.find("vector-card")).toBeNull();
		await page.say(engineFrame({ ...offers, vectors: [joy] }));
		expect(page.find("slider-calm")).toBeNull();
	});

	test("of a function shows its docstring and whose code it is, and there is no file and no operator", async () => {
		const about = "No manner\n\nTakes it out of the stream.";
		const manner = vectorInfo({
			id: "no_manner",
			label: "No manner",
			description: about,
			layers: [4, 5],
			kind: "function",
			operator: null,
			operators: [],
			file: "manner.py",
		});
		await page.say(engineFrame({ ...offers, vectors: [joy, manner] }));
		await page.click("how-toggle-no_manner");
		expect(page.find("operator-no_manner")).toBeNull();
		expect(page.find("scope-no_manner")).not.toBeNull();
		expect(page.text("how-about-no_manner")).toContain("A function of this server");
		await page.click("card-toggle-no_manner");
		expect(page.find("vector-card")!.querySelector(".docstring")!.textContent).toBe(about);
		expect(page.text("vector-card")).toContain("code with which this server was started");
		expect(page.text("function-file")).toBe("manner.py");
		expect(page.find("vector-download")).toBeNull();
		expect(page.find("vector-delete")).toBeNull();
		expect(page.asked).toEqual([]);
		// It steers as any other.
		await page.fill("slider-no_manner", "0.5");
		await page.ask();
		expect(page.sent.at(-1)).toMatchObject({ type: "start", strengths: { no_manner: 0.5 }, settings: {} });
	});

	test("Escape puts it away and does not stop a reply", async () => {
		await page.ask();
		await page.say(startedFrame(["p"]));
		await page.click("card-toggle-joy");
		await act(async () => {
			const press = new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true });
			page.find("vector-card-close")!.dispatchEvent(press);
		});
		expect(page.find("vector-card")).toBeNull();
		expect(page.sent.some((frame) => frame.type === "stop")).toBe(false);
	});
});
