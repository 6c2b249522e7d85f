// @vitest-environment happy-dom
// The page with a recording over a live session: what a person meets, and that the live one loses nothing.
import { act } from "react";
import { createRoot } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ApiError } from "../connection/http";
import { Page } from "../Page";
import { FrameBatch } from "../store/signal";
import { metric, welcome } from "../testing/lab";
import { testRecording } from "../testing/recording";
import { TestServer } from "../testing/server";
import { nextTask } from "./breath";
import { Playback } from "./playback";
import { writeRecording } from "./write";

const host = document.createElement("div");
let root: ReturnType<typeof createRoot>;
let server: TestServer;
let playback: Playback;

beforeEach(async () => {
	vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
	const observer = class {
		observe() {}
		disconnect() {}
	};
	vi.stubGlobal("ResizeObserver", observer);
	const batch = new FrameBatch((callback) => callback());
	server = new TestServer(batch);
	playback = new Playback(server.session, batch);
	document.body.append(host);
	root = createRoot(host);
	await act(async () => root.render(<Page playback={playback} />));
	await act(async () => server.open({ ...welcome, metrics: [metric] }));
});

afterEach(async () => {
	await act(async () => playback.close());
	await act(async () => root.unmount());
	vi.unstubAllGlobals();
	localStorage.clear();
	sessionStorage.clear();
});

function find<T extends HTMLElement>(id: string): T | null {
	return host.querySelector<T>(`[data-testid="${id}"]`);
}

async function open(name: string, read: () => Promise<Uint8Array>): Promise<void> {
	await act(async () => {
		await playback.open(name, read);
		for (let i = 0; i < 20; i++) await nextTask();
	});
}

const recorded = () => writeRecording(testRecording());

test("a recording is shown with its title, and takes nothing", async () => {
	await open("hello.npz", recorded);
	expect(find("recording-title")?.textContent).toBe("Say hello 🌍");
	expect(find("recording-model")?.textContent).toBe("tiny");
	expect([...host.querySelectorAll(".message-user")].map((one) => one.textContent)).toEqual([
		"Say hello 🌍",
		"Again",
	]);
	expect(find<HTMLTextAreaElement>("prompt-input")?.disabled).toBe(true);
	expect(find<HTMLButtonElement>("watch")?.disabled).toBe(true);
	expect(find<HTMLInputElement>("slider-joy")?.closest("fieldset")?.disabled).toBe(true);
	expect(host.textContent).toContain("This is a recording: nothing can be asked");
	expect([find("new-chat"), find("new-slider"), find("connection-state"), find("stop")]).toEqual([
		null,
		null,
		null,
		null,
	]);
});

test("the live page goes on behind it and comes back with what was typed", async () => {
	const box = find<HTMLTextAreaElement>("prompt-input")!;
	await act(async () => {
		Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value")!.set!.call(box, "half a quest");
		box.dispatchEvent(new Event("input", { bubbles: true }));
	});
	await open("hello.npz", recorded);
	await act(async () => find("back-to-live")!.click());
	expect(find("recording-banner")).toBeNull();
	expect(find<HTMLTextAreaElement>("prompt-input")?.value).toBe("half a quest");
	expect(server.session.connection.state.kind).toBe("live");
});

test("a file that is no recording leaves the page as it is, with a sentence", async () => {
	await open("song.mp3", async () => new TextEncoder().encode("ID3 and nothing else of use"));
	expect(find("error-banner")?.textContent).toBe(
		"“song.mp3” was not opened. The file is no zip file, or its end is missing.",
	);
	expect([find("recording-banner"), find<HTMLTextAreaElement>("prompt-input")?.disabled]).toEqual([
		null,
		false,
	]);
	await open("hello.npz", recorded);
	await open("gone.npz", () => Promise.reject(new ApiError("The server cannot be reached.", 0)));
	expect(find("recording-banner")).not.toBeNull();
	expect(find("error-banner")?.textContent).toContain("The server cannot be reached.");
});

test("of two files that are opened at once the last is shown", async () => {
	let slow: (bytes: Uint8Array) => void = () => {};
	let first: Promise<void> | undefined;
	await act(async () => {
		first = playback.open("first.npz", () => new Promise((resolve) => (slow = resolve)));
	});
	await open("hello.npz", recorded);
	await act(async () => {
		slow(new Uint8Array(3));
		await first;
	});
	expect([find("recording-banner") === null, playback.problem]).toEqual([false, null]);
});

test("texts of a file are texts and nothing else", async () => {
	const title = '<img src=x onerror="alert(1)">';
	await open(`${title}.npz`, () => writeRecording(testRecording({ title })));
	expect(find("recording-title")?.textContent).toBe(title);
	expect(host.querySelector("img")).toBeNull();
});

test("what can be saved is a menu for keys too", async () => {
	await open("hello.npz", recorded);
	const button = find<HTMLButtonElement>("save-recording")!;
	const press = (key: string) =>
		act(async () => {
			const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
			document.activeElement!.dispatchEvent(event);
		});
	button.focus();
	await act(async () => button.click());
	expect(document.activeElement).toBe(find("save-conversation"));
	await press("ArrowDown");
	expect(document.activeElement).toBe(find("save-shown"));
	await press("ArrowUp");
	await press("ArrowUp");
	expect(document.activeElement).toBe(find("save-page"));
	await press("Escape");
	expect([find("save-page"), document.activeElement]).toEqual([null, button]);
});
