import { beforeEach, describe, expect, test } from "vitest";
import type { Fetch } from "../connection/http";
import { manualBatch, vectorInfo } from "../testing";
import { type BuildState, VectorApi } from "./api";
import { MOST_FAILURES, POLL_MS, VectorBuild } from "./build";

const request = { label: "Calm", positive: "You are calm.", negative: "You are upset.", adapter: null };
const result = {
	vector: vectorInfo({ id: "calm", label: "Calm", own: true }),
	layer: 12,
	range: [-0.2, 0.3] as [number, number],
	suggested: 0.15,
	separation: [{ layer: 12, score: 0.97 }],
	sweep: [{ strength: 0.15, effect: 1, damage: 0, sample: "Breathe." }],
};

let answers: (() => Response | Promise<Response>)[];
let asked: { method: string; path: string; body: unknown }[];
let timers: { callback: () => void; ms: number }[];
let token: string | null;
let headers: Headers[];
let kept: Map<string, string>;

const clock = {
	now: () => 0,
	setTimeout: (callback: () => void, ms: number) => timers.push({ callback, ms }),
	clearTimeout: () => {},
};
const storage = {
	getItem: (key: string) => kept.get(key) ?? null,
	setItem: (key: string, value: string) => void kept.set(key, value),
	removeItem: (key: string) => void kept.delete(key),
};
const json = (body: unknown, status = 200) => new Response(JSON.stringify(body), { status });
const state = (changes: Partial<BuildState>): BuildState => ({
	job: "j1",
	state: "running",
	stage: "Reading topics.",
	progress: 0.5,
	error: null,
	result: null,
	...changes,
});
const fetchFake: Fetch = async (path, init) => {
	headers.push(new Headers(init?.headers));
	asked.push({ method: init?.method ?? "GET", path, body: init?.body });
	const answer = answers.shift();
	if (answer === undefined) throw new Error(`Nobody answers ${path}.`);
	return answer();
};
const make = () => new VectorBuild(new VectorApi(() => token, fetchFake), clock, storage, manualBatch());
/** Let everything that was promised happen. */
const settle = async () => {
	for (let i = 0; i < 20; i++) await Promise.resolve();
};
const poll = async (answer: () => Response | Promise<Response>) => {
	answers.push(answer);
	const { callback, ms } = timers.shift()!;
	expect(ms).toBe(POLL_MS);
	callback();
	await settle();
};

beforeEach(() => {
	[answers, asked, timers, kept] = [[], [], [], new Map()];
	[token, headers] = [null, []];
});

async function running(): Promise<VectorBuild> {
	const build = make();
	answers.push(() => json({ job: "j1" }, 202));
	await build.start(request);
	return build;
}

describe("a build", () => {
	test("goes from its start over its progress to its result", async () => {
		const build = await running();
		expect(asked[0]).toEqual({ method: "POST", path: "api/vectors/build", body: JSON.stringify(request) });
		expect(build.busy).toBe(true);
		await poll(() => json(state({ progress: 0.25 })));
		expect(build.now).toMatchObject({ kind: "running", stage: "Reading topics.", progress: 0.25 });
		await poll(() => json(state({ state: "done", progress: 1, result })));
		expect(build.now).toEqual({ kind: "done", label: "Calm", result });
		expect([timers, kept.size]).toEqual([[], 0]);
		build.forget();
		expect(build.now).toEqual({ kind: "none" });
	});

	test("says the token in a header, when there is one", async () => {
		const build = await running();
		token = "secret";
		await poll(() => json(state({})));
		expect(build.busy).toBe(true);
		expect(headers.map((one) => [one.get("authorization"), one.get("content-type")])).toEqual([
			[null, "application/json"],
			["Bearer secret", null],
		]);
		expect(asked.every(({ path }) => !path.includes("secret"))).toBe(true);
	});

	test("that is refused says the server's sentence", async () => {
		const build = make();
		answers.push(() => json({ error: "Another vector is being built here." }, 409));
		await build.start(request);
		expect(build.now).toEqual({
			kind: "failed",
			label: "Calm",
			message: "Another vector is being built here.",
		});
		expect(timers).toEqual([]);
	});

	test("that fails or is cancelled says so", async () => {
		let build = await running();
		await poll(() => json(state({ state: "failed", error: "The two sides do not differ." })));
		expect(build.now).toMatchObject({ kind: "failed", message: "The two sides do not differ." });
		build = await running();
		answers.push(() => new Response(null, { status: 204 }));
		await build.cancel();
		expect(asked.at(-1)).toMatchObject({ method: "DELETE", path: "api/vectors/build/j1" });
		expect(build.now).toMatchObject({ kind: "running", stage: "Cancelling." });
		await poll(() => json(state({ state: "cancelled" })));
		expect(build.now).toEqual({ kind: "cancelled", label: "Calm" });
	});

	test("outlives a network that is away for a while, not for good", async () => {
		const build = await running();
		const away = () => Promise.reject(new TypeError("Failed to fetch"));
		for (let i = 1; i < MOST_FAILURES; i++) await poll(away);
		await poll(() => json(state({})));
		for (let i = 0; i < MOST_FAILURES; i++) await poll(away);
		expect(build.now).toMatchObject({ kind: "failed", message: "The server cannot be reached." });
	});

	test("is found again by a reloaded page, and by none after it is over", async () => {
		await running();
		answers.push(() => json(state({ state: "done", result })));
		const again = make();
		expect(again.now).toMatchObject({ kind: "running", label: "Calm", job: "j1" });
		await settle();
		expect(again.now.kind).toBe("done");
		expect(make().now).toEqual({ kind: "none" });
	});

	test("that the server no longer knows is not looked for again", async () => {
		await running();
		answers.push(() => json({ error: "There is no such build." }, 404));
		const again = make();
		await settle();
		expect(again.now).toMatchObject({ kind: "failed", message: "There is no such build." });
		expect(kept.size).toBe(0);
	});

	test.each(["", "7", "{}", '{"job":1,"label":"x"}', "{"])("damaged storage %j is no build", (text) => {
		kept.set("steersight.build.v1", text);
		expect(make().now).toEqual({ kind: "none" });
	});

	test("a refusal without a sentence still becomes one", async () => {
		const build = make();
		answers.push(() => new Response("<html>Bad gateway</html>", { status: 502 }));
		await build.start(request);
		expect(build.now).toMatchObject({ message: "The server refused this (502)." });
	});
});
