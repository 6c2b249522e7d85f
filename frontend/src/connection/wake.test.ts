import { expect, test } from "vitest";
import { wakeOnReturn } from "./wake";

test("the line is looked at when the network is back or the page is seen again, and only then", () => {
	const window = new EventTarget();
	const document = Object.assign(new EventTarget(), {
		visibilityState: "visible" as DocumentVisibilityState,
	});
	let woken = 0;
	wakeOnReturn(() => woken++, window, document);
	const see = (state: DocumentVisibilityState) => {
		document.visibilityState = state;
		document.dispatchEvent(new Event("visibilitychange"));
	};
	see("hidden");
	expect(woken).toBe(0);
	see("visible");
	expect(woken).toBe(1);
	window.dispatchEvent(new Event("online"));
	expect(woken).toBe(2);
	window.dispatchEvent(new Event("offline"));
	window.dispatchEvent(new Event("pageshow"));
	expect(woken).toBe(2);
	window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
	expect(woken).toBe(3);
});
