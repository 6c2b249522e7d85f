// @vitest-environment happy-dom
import { act } from "react";
import { createRoot } from "react-dom/client";
import { expect, test, vi } from "vitest";
import { metricInfo } from "../testing";
import { LegendEnds, movedEnd } from "./LegendEnds";

const linear = metricInfo();
const diverging = metricInfo({ scale: { kind: "diverging", lo: null, hi: null, mid: 1 } });

test("one end moves and the other stays, and they never meet", () => {
	const range = { lo: 2, hi: 6 };
	expect(movedEnd(linear, range, "lo", 0.25)).toEqual({ lo: 3, hi: 6 });
	expect(movedEnd(linear, range, "hi", -0.5)).toEqual({ lo: 2, hi: 4 });
	expect(movedEnd(linear, range, "hi", 1)).toEqual({ lo: 2, hi: 10 });
	for (const end of ["lo", "hi"] as const) {
		for (const share of [-9, 9]) {
			const { lo, hi } = movedEnd(linear, range, end, share);
			expect(hi).toBeGreaterThan(lo);
		}
	}
});

test("a diverging scale keeps its middle", () => {
	expect(movedEnd(diverging, { lo: -1, hi: 3 }, "hi", 0.25)).toEqual({ lo: -2, hi: 4 });
	expect(movedEnd(diverging, { lo: -1, hi: 3 }, "lo", 0.25)).toEqual({ lo: 0, hi: 2 });
	const { lo, hi } = movedEnd(diverging, { lo: -1, hi: 3 }, "lo", 5);
	expect([(lo + hi) / 2, hi > lo]).toEqual([1, true]);
});

test("ends are moved by key and by pointer, and given back to the numbers", async () => {
	vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
	const host = document.createElement("div");
	document.body.append(host);
	const root = createRoot(host);
	const onRange = vi.fn();
	await act(async () =>
		root.render(<LegendEnds metric={linear} range={{ lo: 0, hi: 50 }} onRange={onRange} />),
	);
	const find = (id: string) => host.querySelector<HTMLElement>(`[data-testid="${id}"]`)!;
	const tell = (id: string, event: Event) => act(async () => void find(id).dispatchEvent(event));
	expect(find("legend-hi").getAttribute("aria-valuetext")).toBe("50");
	await tell("legend-hi", new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
	expect(onRange).toHaveBeenLastCalledWith({ lo: 0, hi: 49 });
	// Other keys are the page's.
	await tell("legend-hi", new KeyboardEvent("keydown", { key: "a", bubbles: true }));
	expect(onRange).toHaveBeenCalledTimes(1);
	find("legend-lo").setPointerCapture = () => {};
	const bar = host.querySelector<HTMLElement>(".legend-ends")!;
	bar.getBoundingClientRect = () => new DOMRect(0, 0, 100, 9);
	await tell("legend-lo", new PointerEvent("pointerdown", { clientX: 0, bubbles: true }));
	await tell("legend-lo", new PointerEvent("pointermove", { clientX: 10, bubbles: true }));
	expect(onRange).toHaveBeenLastCalledWith({ lo: 5, hi: 50 });
	await tell("legend-lo", new PointerEvent("pointerup", { bubbles: true }));
	await tell("legend-lo", new PointerEvent("pointermove", { clientX: 40, bubbles: true }));
	expect(onRange).toHaveBeenCalledTimes(2);
	await tell("legend-lo", new MouseEvent("dblclick", { bubbles: true }));
	expect(onRange).toHaveBeenLastCalledWith(null);
	await act(async () => root.unmount());
	vi.unstubAllGlobals();
});
