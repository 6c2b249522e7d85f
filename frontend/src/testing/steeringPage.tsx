// The whole page with two vectors, one of a person's own, for tests of the Steering panel. Socket, HTTP and time are
// the test's. Used by tests only.
import { act } from "react";
import { vi } from "vitest";
import { metricInfo, modelInfo, vectorInfo, welcomeFrame } from "./frames";
import { afterwards, TestPage } from "./page";
import { STILL } from "./server";

export const joy = vectorInfo({ range: [-0.3, 0.3], suggested: 0.2, layers: [1] });
export const own = vectorInfo({ id: "calm", label: "Calm", own: true, layers: [0] });
const METRICS = ["norm", "steering_share", "projection:joy", "projection_before:joy"];
export const offers = { model: modelInfo(), metrics: METRICS.map((id) => metricInfo({ id })) };

export class SteeringPage extends TestPage {
	/** What was asked over HTTP, oldest first. */
	readonly asked: { method: string; path: string; body: unknown }[] = [];
	/** Answers by "METHOD path": null is one without a body, and a sentence under `error` is a refusal. */
	readonly answers: Record<string, unknown> = {};
	readonly #timers: (() => void)[];

	constructor() {
		const timers: (() => void)[] = [];
		super(afterwards, {
			...STILL,
			now: () => timers.length * 1000,
			setTimeout: (callback) => timers.push(callback),
		});
		this.#timers = timers;
		vi.stubGlobal("fetch", (path: string, init?: RequestInit) => this.#fetch(path, init));
	}

	ready(): Promise<void> {
		return this.open(welcomeFrame({ ...offers, vectors: [joy, own] }));
	}

	/** Every timer that waits now comes due. */
	tick(): Promise<void> {
		return act(async () => {
			for (const callback of this.#timers.splice(0)) callback();
		});
	}

	async #fetch(path: string, init?: RequestInit): Promise<Response> {
		const method = init?.method ?? "GET";
		this.asked.push({ method, path, body: init?.body });
		const answer = this.answers[`${method} ${path}`] as { error?: string } | null | undefined;
		if (answer === undefined) return new Response('{"error":"Nobody expects this."}', { status: 404 });
		if (answer === null) return new Response(null, { status: 204 });
		return new Response(JSON.stringify(answer), {
			status: typeof answer.error === "string" && !("job" in answer) ? 422 : 200,
		});
	}
}
