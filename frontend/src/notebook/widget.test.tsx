// @vitest-environment happy-dom
// The widget as a notebook shows it: the page's panels, and nothing that asks for more than the run.
import { encode } from "@msgpack/msgpack";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { conversationBytes } from "../recording/save";
import { finishedFrame, resumedFrame, rowsFrame, startedFrame, tokensFrame } from "../testing";
import { welcome } from "../testing/lab";
import { played } from "../testing/server";
import type { WidgetModel } from "./comm";
import widget from "./main";

type Listener = (...said: never[]) => void;

class Model implements WidgetModel {
	readonly sent: { kind: string; line: string }[] = [];
	#listeners: Listener[] = [];

	constructor(private readonly traits: Record<string, unknown>) {}

	get(name: string): unknown {
		return this.traits[name];
	}
	send(content: unknown): void {
		this.sent.push(content as { kind: string; line: string });
	}
	on(event: string, callback: Listener): void {
		if (event === "msg:custom") this.#listeners.push(callback);
	}
	off(): void {}

	bring(...frames: unknown[]): void {
		const { line } = this.sent[0]!;
		const buffers = frames.map((frame) => new DataView(encode(frame).slice().buffer));
		for (const listener of this.#listeners) {
			(listener as (...said: unknown[]) => void)({ kind: "opened", line });
			(listener as (...said: unknown[]) => void)({ kind: "frames", line }, buffers);
		}
	}
}

let cleanups: (() => void)[];
beforeEach(() => {
	cleanups = [];
	vi.stubGlobal(
		"ResizeObserver",
		class {
			observe() {}
			disconnect() {}
		},
	);
	document.body.dataset.jpThemeLight = "true";
});
afterEach(() => {
	for (const cleanup of cleanups.reverse()) cleanup();
	document.body.replaceChildren();
	vi.unstubAllGlobals();
});

function shown(traits: Record<string, unknown>, views = 1) {
	const model = new Model({ widget: "w", run: "r1", recording: new DataView(new ArrayBuffer(0)), ...traits });
	cleanups.push(widget.initialize({ model }));
	const roots: ShadowRoot[] = [];
	for (let i = 0; i < views; i++) {
		const el = document.createElement("div");
		document.body.append(el);
		cleanups.push(widget.render({ model, el }));
		roots.push((el.firstElementChild as HTMLElement).shadowRoot!);
	}
	return { model, roots };
}

const find = (root: ShadowRoot, testid: string) =>
	root.querySelector<HTMLElement>(`[data-testid="${testid}"]`);

test("the panels are there, with what the run needs and no more", async () => {
	const { model, roots } = shown({}, 2);
	const [root, second] = roots as [ShadowRoot, ShadowRoot];
	await vi.waitFor(() => expect(find(root, "widget-line")?.textContent).toContain("Waiting for the kernel"));
	model.bring(
		welcome,
		startedFrame(["p"]),
		resumedFrame({ rev: 0 }),
		rowsFrame(0, 1),
		tokensFrame(1, ["Hello"]),
	);
	for (const one of [root, second]) {
		await vi.waitFor(() => expect(find(one, "message-assistant")?.textContent).toContain("Hello"));
		expect(find(one, "widget-line")).toBeNull();
		expect(find(one, "slider-joy")).not.toBeNull();
		for (const more of [
			"watch",
			"new-slider",
			"import",
			"share",
			"card-toggle-joy",
			"regenerate",
			"watch-tab",
		]) {
			expect(find(one, more), more).toBeNull();
		}
	}
	expect(find(root, "sliders-fixed")).toBeNull();
	model.bring(finishedFrame());
	await vi.waitFor(() => expect(find(root, "sliders-fixed")).not.toBeNull());
	expect(find(root, "message-assistant")?.textContent).toContain("Hello");
});

test("the notebook's theme is followed", async () => {
	const { roots } = shown({});
	const host = roots[0]!.host as HTMLElement;
	await vi.waitFor(() => expect(find(roots[0]!, "steersight-widget")?.dataset.theme).toBe("light"));
	expect(host.dataset.theme).toBe("light");
	document.body.dataset.jpThemeLight = "false";
	await vi.waitFor(() => expect(host.dataset.theme).toBe("dark"));
	await vi.waitFor(() => expect(find(roots[0]!, "steersight-widget")?.dataset.theme).toBe("dark"));
});

test("a run that has ended is shown from its recording, without a kernel", async () => {
	const { server, session } = played();
	server.say(welcome);
	server.turn("Say hello", ["Hello"], "r1");
	const { bytes } = await conversationBytes(session, null, new Date("2026-11-26T12:00:00Z"));
	const { model, roots } = shown({ recording: new DataView(bytes.slice().buffer) });
	await vi.waitFor(() => expect(find(roots[0]!, "message-assistant")?.textContent).toContain("Hello"));
	expect(model.sent).toEqual([]);
	expect(find(roots[0]!, "message-user")?.textContent).toBe("Say hello");
});
