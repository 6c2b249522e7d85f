// @vitest-environment happy-dom
import { afterEach, expect, test, vi } from "vitest";
import { onDensity } from "./density";

/** A screen of which queries hear only when they begin or cease to match, as a browser's do. */
class Screen {
	readonly queries = new Set<{ ratio: number; listeners: Set<() => void> }>();
	constructor(public ratio: number) {
		vi.stubGlobal("devicePixelRatio", ratio);
		vi.stubGlobal("matchMedia", (text: string) => {
			const query = { ratio: Number(/[\d.]+/.exec(text)![0]), listeners: new Set<() => void>() };
			this.queries.add(query);
			return {
				addEventListener: (_: string, listener: () => void) => query.listeners.add(listener),
				removeEventListener: (_: string, listener: () => void) => query.listeners.delete(listener),
			};
		});
	}
	turn(ratio: number) {
		const before = this.ratio;
		this.ratio = ratio;
		vi.stubGlobal("devicePixelRatio", ratio);
		for (const query of [...this.queries]) {
			if ((query.ratio === before) !== (query.ratio === ratio))
				for (const hear of [...query.listeners]) hear();
		}
	}
	get listening() {
		return [...this.queries].filter(({ listeners }) => listeners.size > 0).length;
	}
}

afterEach(() => vi.unstubAllGlobals());

test("every change of the screen's density is heard of, not only the first", () => {
	const screen = new Screen(1);
	const heard: number[] = [];
	const stop = onDensity(() => heard.push(devicePixelRatio));
	for (const ratio of [2, 1.5, 1.25, 2, 1]) screen.turn(ratio);
	expect(heard).toEqual([2, 1.5, 1.25, 2, 1]);
	expect(screen.listening).toBe(1);
	stop();
	screen.turn(2);
	expect([heard.length, screen.listening]).toEqual([5, 0]);
});
