// Run state lives outside React, because it changes many times per frame and most of it is drawn without
// React. A Signal says that something changed; listeners hear of it at most once per animation frame.

type Listener = () => void;

/** Runs each scheduled callback once per frame, in the order in which they were first asked for. */
export class FrameBatch {
	#pending = new Set<Listener>();
	#asked = false;

	constructor(private readonly nextFrame: (callback: () => void) => void) {}

	add(callback: Listener): void {
		this.#pending.add(callback);
		if (this.#asked) return;
		this.#asked = true;
		this.nextFrame(() => this.flush());
	}

	flush(): void {
		this.#asked = false;
		const due = this.#pending;
		this.#pending = new Set();
		for (const callback of due) {
			try {
				callback();
			} catch (error) {
				// One broken panel must not stop the others; the error still reaches the console.
				reportError(error);
			}
		}
	}
}

/** Longer than a frame of any screen that is looked at. */
const NO_FRAME_MS = 100;

/**
 * A hidden page gets no animation frames, also none that it asked for while it was seen; a slow timer keeps its
 * title, its text and what it stores up to date.
 */
export function nextFrame(callback: () => void): void {
	if (typeof requestAnimationFrame !== "function" || document.hidden) {
		setTimeout(callback, NO_FRAME_MS);
		return;
	}
	const frame = requestAnimationFrame(() => {
		clearTimeout(timer);
		callback();
	});
	const timer = setTimeout(() => {
		cancelAnimationFrame(frame);
		callback();
	}, NO_FRAME_MS);
}

export const pageBatch = new FrameBatch(nextFrame);

export class Signal {
	#listeners = new Set<Listener>();
	#version = 0;
	readonly #tell = () => {
		for (const listener of [...this.#listeners]) listener();
	};

	constructor(private readonly batch: FrameBatch = pageBatch) {}

	/** Grows with every change; what useSyncExternalStore compares. */
	get version(): number {
		return this.#version;
	}

	readonly getVersion = (): number => this.#version;

	changed(): void {
		this.#version += 1;
		if (this.#listeners.size > 0) this.batch.add(this.#tell);
	}

	readonly subscribe = (listener: Listener): (() => void) => {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	};
}
