// The moments at which a line is worth a look before its next try or ping is due: the network is back, or the
// page is seen again, perhaps after hours in which it was frozen.

type Target = Pick<EventTarget, "addEventListener">;

interface Page extends Target {
	readonly visibilityState: DocumentVisibilityState;
}

export function wakeOnReturn(wake: () => void, window: Target, document: Page): void {
	window.addEventListener("online", wake);
	// Also a page that comes out of the browser's own store of left pages: its socket is closed.
	window.addEventListener("pageshow", (event) => {
		if ((event as PageTransitionEvent).persisted) wake();
	});
	document.addEventListener("visibilitychange", () => {
		if (document.visibilityState === "visible") wake();
	});
}
