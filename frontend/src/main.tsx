// Entry of the page: one session for its whole life over the socket beside it, and a recording where one is carried
// in the page, named in its address, dropped or opened. A page that carries one, and one whose address says that there is
// no server, have no live session.
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Page } from "./Page";
import { bytesAt, bytesOf, inlineRecording, recordingIn, withoutRecording } from "./recording/doors";
import { Playback } from "./recording/playback";
import { openLive } from "./session/live";
import { tabStorage } from "./session/storage";
import { loadToken } from "./session/token";
import { preload } from "./ui/later";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/chat.css";
import "./styles/heatmap.css";
import "./styles/steering.css";
import "./styles/dialog.css";
import "./styles/recording.css";
import "./styles/motion.css";

/** When a page that has just been opened has nothing better to do. */
const PRELOAD_MS = 2_000;

const inline = inlineRecording(document);
const alone = inline !== null || recordingIn(location.hash)?.only === true;
const playback = new Playback(alone ? null : openLive());

/** Open the recording that the address names. It stays in the address while it is shown: a reload shows it again. */
function openAddressed() {
	const addressed = recordingIn(location.hash);
	if (addressed === null) return;
	const { path } = addressed;
	void playback.open(path, () =>
		bytesAt(path, location.href, () => playback.live?.connection.token ?? loadToken(tabStorage())),
	);
}

if (inline !== null) void playback.open("this page", () => bytesOf(inline));
else openAddressed();
addEventListener("hashchange", openAddressed);
playback.changed.subscribe(() => {
	if (playback.replay !== null || playback.opening !== null || alone) return;
	if (recordingIn(location.hash) === null) return;
	const rest = withoutRecording(location.hash);
	history.replaceState(null, "", `${location.pathname}${location.search}${rest === "" ? "" : `#${rest}`}`);
});

// Nobody waits for it: what it brings is for later.
if (playback.live !== null) setTimeout(() => void preload(), PRELOAD_MS);

createRoot(document.getElementById("root")!).render(
	<StrictMode>
		<Page playback={playback} />
	</StrictMode>,
);
