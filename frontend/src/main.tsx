// Entry of the page: one session for its whole life, over the socket beside it. What a tab keeps over a reload,
// and what its address says once, is handed to the session here.
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { socketUrl, webSocketTransport } from "./connection/transport";
import { wakeOnReturn } from "./connection/wake";
import { takePart } from "./session/fragment";
import { findKept, Keeper } from "./session/kept";
import { Session } from "./session/session";
import { tabStorage } from "./session/storage";
import { loadToken } from "./session/token";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/chat.css";
import "./styles/heatmap.css";
import "./styles/steering.css";
import "./styles/dialog.css";
import "./styles/motion.css";

const storage = tabStorage();
const session = new Session(webSocketTransport(socketUrl(location.href)), loadToken(storage));

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
addEventListener("pagehide", () => keeper.keep());
document.addEventListener("visibilitychange", () => {
	if (document.visibilityState === "hidden") keeper.keep();
});

function takeShared() {
	const shared = takePart(location, history, "s");
	if (shared !== null) session.openShared(shared);
}
takeShared();
addEventListener("hashchange", () => {
	takeShared();
	const name = takePart(location, history, "watch");
	if (name !== null) session.watch(name);
});

createRoot(document.getElementById("root")!).render(
	<StrictMode>
		<App session={session} />
	</StrictMode>,
);
