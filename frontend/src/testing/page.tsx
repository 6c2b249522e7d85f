// The whole page against a server that the test plays, for tests that look at what a person meets. Used by tests
// only.
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { vi } from "vitest";
import { App } from "../App";
import type { Clock } from "../connection/clock";
import type { ClientFrame, ServerFrame, Start } from "../protocol/types.gen";
import type { Session } from "../session/session";
import { FrameBatch } from "../store/signal";
import { preload } from "../ui/later";
import { STILL, TestServer } from "./server";

/** Changes are told at once: `act` waits for React, not for the screen. */
const atOnce = (callback: () => void) => callback();
/** As on a page: changes are told after the event that made them. */
export const afterwards = (callback: () => void) => void Promise.resolve().then(callback);

const PAGE_CLOCK: Clock = { ...STILL, now: () => performance.now() };

export class TestPage {
	readonly host = document.createElement("div");
	readonly server: TestServer;
	#root: Root;

	constructor(
		tell: (callback: () => void) => void = atOnce,
		clock: Clock = PAGE_CLOCK,
		place?: ConstructorParameters<typeof TestServer>[2],
	) {
		vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
		const observer = class {
			observe() {}
			disconnect() {}
		};
		vi.stubGlobal("ResizeObserver", observer);
		this.server = new TestServer(new FrameBatch(tell), clock, place);
		document.body.append(this.host);
		this.#root = createRoot(this.host);
	}

	get session(): Session {
		return this.server.session;
	}

	get sent(): ClientFrame[] {
		return this.server.sent;
	}

	get starts(): Start[] {
		return this.server.starts;
	}

	/** Before there is any line. What is loaded for the asking is there. */
	async show(): Promise<void> {
		await preload();
		await act(async () => this.#root.render(<App session={this.session} />));
	}

	/** Show it, and let the server say these. */
	async open(...frames: ServerFrame[]): Promise<void> {
		await this.show();
		await act(async () => this.server.open(...frames));
	}

	async close(): Promise<void> {
		await act(async () => this.#root.unmount());
		this.host.remove();
		localStorage.clear();
		sessionStorage.clear();
		vi.unstubAllGlobals();
	}

	say(...frames: ServerFrame[]): Promise<void> {
		return act(async () => this.server.say(...frames));
	}

	/** The line closes; without a code, because it broke. */
	breakOff(code = 1006, reason = ""): Promise<void> {
		return act(async () => this.server.line.onClose(code, reason));
	}

	comeBack(...frames: ServerFrame[]): Promise<void> {
		return act(async () => this.server.comeBack(...frames));
	}

	find<T extends HTMLElement = HTMLElement>(id: string): T | null {
		return this.host.querySelector<T>(`[data-testid="${id}"]`);
	}

	text(id: string): string | null {
		return this.find(id)?.textContent ?? null;
	}

	/** What stands in a field. */
	value(id: string): string {
		return this.find<HTMLInputElement>(id)!.value;
	}

	click(id: string): Promise<void> {
		return act(async () => this.find(id)!.click());
	}

	/** The whole text at once, as a paste puts it; of a list, the choice. */
	async fill(id: string, value: string): Promise<void> {
		const field = this.find<HTMLInputElement>(id)!;
		await act(async () => {
			Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value")!.set!.call(field, value);
			field.dispatchEvent(new Event(field.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
		});
	}

	async ask(question = "Hello?"): Promise<void> {
		await this.fill("prompt-input", question);
		await this.click("send");
	}

	press(
		target: EventTarget,
		key: string,
		how: { isComposing?: boolean; keyCode?: number; ctrlKey?: boolean } = {},
	): Promise<void> {
		const { keyCode = 0, isComposing = false, ctrlKey = false } = how;
		const event = new KeyboardEvent("keydown", {
			key,
			isComposing,
			ctrlKey,
			bubbles: true,
			cancelable: true,
		});
		Object.defineProperty(event, "keyCode", { value: keyCode });
		return act(async () => void target.dispatchEvent(event));
	}

	/** All that a screen reader speaks by itself when it changes. */
	spoken(): string {
		return [...this.host.querySelectorAll("output, [role=status], [role=alert], [aria-live]")]
			.map((region) => region.textContent)
			.join("|");
	}
}
