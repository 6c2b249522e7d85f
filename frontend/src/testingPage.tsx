// The whole page against a server that the test plays, for tests that look at what a person meets. Used by tests
// only.
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { vi } from "vitest";
import { App } from "./App";
import type { TransportHandlers } from "./connection/transport";
import type { ClientFrame, ServerFrame, Start } from "./protocol/types.gen";
import { Session } from "./session/session";
import { FrameBatch } from "./store/signal";

export class TestPage {
	readonly sent: ClientFrame[] = [];
	readonly host = document.createElement("div");
	readonly session: Session;
	server!: TransportHandlers;
	#root: Root;

	constructor() {
		vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
		const observer = class {
			observe() {}
			disconnect() {}
		};
		vi.stubGlobal("ResizeObserver", observer);
		this.session = new Session(
			(handlers) => {
				this.server = handlers;
				return { send: (frame) => this.sent.push(frame) > 0, close: () => {} };
			},
			null,
			// Frames come at once: `act` waits for React, not for the screen.
			new FrameBatch((callback) => callback()),
			{ now: () => performance.now(), random: () => 0, setTimeout: () => 0, clearTimeout: () => {} },
		);
		document.body.append(this.host);
		this.#root = createRoot(this.host);
	}

	/** Show it, and let the server say these. */
	async open(...frames: ServerFrame[]): Promise<void> {
		await act(async () => this.#root.render(<App session={this.session} />));
		await act(async () => {
			this.session.connection.connect();
			this.server.onOpen();
		});
		await this.say(...frames);
	}

	async close(): Promise<void> {
		await act(async () => this.#root.unmount());
		this.host.remove();
		localStorage.clear();
		sessionStorage.clear();
		vi.unstubAllGlobals();
	}

	say(...frames: ServerFrame[]): Promise<void> {
		return act(async () => {
			for (const frame of frames) this.server.onFrame(frame);
		});
	}

	find<T extends HTMLElement = HTMLElement>(id: string): T | null {
		return this.host.querySelector<T>(`[data-testid="${id}"]`);
	}

	text(id: string): string | null {
		return this.find(id)?.textContent ?? null;
	}

	click(id: string): Promise<void> {
		return act(async () => this.find(id)!.click());
	}

	/** The whole text at once, as a paste puts it. */
	async fill(id: string, value: string): Promise<void> {
		const field = this.find<HTMLInputElement>(id)!;
		await act(async () => {
			Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value")!.set!.call(field, value);
			field.dispatchEvent(new Event("input", { bubbles: true }));
		});
	}

	press(
		target: EventTarget,
		key: string,
		how: { isComposing?: boolean; keyCode?: number } = {},
	): Promise<void> {
		const { keyCode = 0, isComposing = false } = how;
		const event = new KeyboardEvent("keydown", { key, isComposing, bubbles: true, cancelable: true });
		Object.defineProperty(event, "keyCode", { value: keyCode });
		return act(async () => void target.dispatchEvent(event));
	}

	starts(): Start[] {
		return this.sent.filter((frame): frame is Start => frame.type === "start");
	}

	/** All that a screen reader speaks by itself when it changes. */
	spoken(): string {
		return [...this.host.querySelectorAll("output, [role=status], [role=alert], [aria-live]")]
			.map((region) => region.textContent)
			.join("|");
	}
}
