// @vitest-environment happy-dom
import { act, Suspense } from "react";
import { createRoot } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { preload } from "./later";
import { lazily } from "./lazily";

const host = document.createElement("div");
let root: ReturnType<typeof createRoot>;
beforeEach(() => {
	vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
	root = createRoot(host);
});
afterEach(async () => {
	await act(async () => root.unmount());
	vi.unstubAllGlobals();
});

test("a part is loaded when it is wanted, or before", async () => {
	const load = vi.fn(async () => ({ name }: { name: string }) => <b>{name}</b>);
	const Part = lazily(load);
	expect(load).not.toHaveBeenCalled();
	await preload();
	expect(load).toHaveBeenCalledTimes(1);
	await act(async () => root.render(<Suspense>{<Part name="x" />}</Suspense>));
	expect(host.innerHTML).toBe("<b>x</b>");
});

test("a part that does not come says so, and the page stays", async () => {
	const Part = lazily(() => Promise.reject<() => null>(new Error("404")));
	await act(async () =>
		root.render(
			<Suspense>
				<i>here</i>
				<Part />
			</Suspense>,
		),
	);
	expect(host.querySelector("i")).not.toBeNull();
	expect(host.textContent).toContain("could not be loaded. Reload the page");
	await preload();
});
