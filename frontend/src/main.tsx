// Entry of the page: one session for its whole life, over the socket beside it.
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { socketUrl, webSocketTransport } from "./connection/transport";
import { Session } from "./session/session";
import { sharedIn, withoutShared } from "./steering/share";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/chat.css";
import "./styles/heatmap.css";
import "./styles/steering.css";
import "./styles/dialog.css";
import "./styles/motion.css";

// A server that asks for a token is opened as /#token=...; the part after # never leaves the browser.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const session = new Session(webSocketTransport(socketUrl(location)), token);
session.connection.connect();
addEventListener("online", () => session.connection.retryNow());

/** Sliders that stand in the address are set once; they would only be set back at the next reload. */
function takeShared() {
	const shared = sharedIn(location.hash);
	if (shared === null) return;
	session.openShared(shared);
	const rest = withoutShared(location.hash);
	history.replaceState(null, "", `${location.pathname}${location.search}${rest === "" ? "" : `#${rest}`}`);
}
takeShared();
addEventListener("hashchange", takeShared);

createRoot(document.getElementById("root")!).render(
	<StrictMode>
		<App session={session} />
	</StrictMode>,
);
