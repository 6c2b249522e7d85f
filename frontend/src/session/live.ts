// The page's session with the server beside it. What a tab keeps over a reload, and what its address says once, is
// handed to the session here.
import { socketUrl, webSocketTransport } from "../connection/transport";
import { wakeOnReturn } from "../connection/wake";
import { BrowserDisk } from "../store/disk";
import { takePart } from "./fragment";
import { findKept, Keeper } from "./kept";
import { Session } from "./session";
import { tabStorage } from "./storage";
import { loadToken } from "./token";

export function openLive(): Session {
	const storage = tabStorage();
	const disk = new BrowserDisk();
	const transport = webSocketTransport(socketUrl(location.href));
	const session = new Session(transport, loadToken(storage), undefined, undefined, null, { disk });

	const watched = takePart(location, history, "watch");
	// A tab that was opened to watch a reply begins with a copy of the other tab's storage: not its conversation.
	const kept = watched === null ? findKept(storage) : null;
	if (kept !== null) session.restore(kept);
	if (watched !== null) session.watch(watched);

	session.connection.connect();
	wakeOnReturn(() => session.connection.wake(), window, document);

	const keeper = new Keeper(storage, () => session.keepable);
	session.changed.subscribe(() => keeper.look());
	// With the last words of a reply that is being written.
	addEventListener("pagehide", ({ persisted }) => {
		keeper.keep();
		// A page that the browser may show again still needs its numbers.
		if (!persisted) disk.end();
	});
	// Not before the page is there: what other pages left does not hurry.
	addEventListener("load", () => void disk.sweep().catch(() => {}));
	document.addEventListener("visibilitychange", () => {
		if (document.visibilityState === "hidden") keeper.keep();
	});

	const takeShared = () => {
		const shared = takePart(location, history, "s");
		if (shared !== null) session.openShared(shared);
	};
	takeShared();
	addEventListener("hashchange", () => {
		takeShared();
		const name = takePart(location, history, "watch");
		if (name !== null) session.watch(name);
	});
	return session;
}
