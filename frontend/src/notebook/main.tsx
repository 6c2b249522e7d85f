// Entry of the widget: what anywidget loads into a notebook. One session for each widget, however often it is shown; a
// run that has ended comes with its recording, and is shown from that, also where there is no kernel.
import { createRoot } from "react-dom/client";
import { Playback } from "../recording/playback";
import { Session } from "../session/session";
import { bytesIn, commTransport, type WidgetModel } from "./comm";
import { STYLES } from "./styles";
import { followTheme } from "./theme";
import { type Themed, Widget } from "./Widget";

/** By the widget's id: anywidget hands another object to each call, and shows one widget several times. */
const playbacks = new Map<string, Playback>();

/** The run's recording, once the kernel has put it into the widget; null before. */
function recordingOf(model: WidgetModel): Uint8Array | null {
	const kept = model.get("recording");
	const known = kept instanceof DataView || kept instanceof ArrayBuffer;
	return known && kept.byteLength > 0 ? bytesIn(kept) : null;
}

function begin(model: WidgetModel): Playback {
	const recording = recordingOf(model);
	if (recording !== null) {
		const playback = new Playback(null);
		void playback.open("this run", async () => recording);
		return playback;
	}
	const session = new Session(commTransport(model), null);
	session.watch(String(model.get("run")));
	session.connection.connect();
	return new Playback(session);
}

function initialize({ model }: { model: WidgetModel }) {
	const id = String(model.get("widget"));
	const playback = begin(model);
	playbacks.set(id, playback);
	return () => {
		playback.live?.connection.close();
		if (playbacks.get(id) === playback) playbacks.delete(id);
	};
}

function render({ model, el }: { model: WidgetModel; el: HTMLElement }) {
	const playback = playbacks.get(String(model.get("widget")));
	if (playback === undefined) throw new Error("The widget was not initialised.");
	const host = document.createElement("div");
	// Keys that move the cursor or a slider are not the notebook's commands.
	host.dataset.lmSuppressShortcuts = "true";
	el.append(host);
	const root = host.attachShadow({ mode: "open" });
	const style = document.createElement("style");
	style.textContent = STYLES;
	const place = document.createElement("div");
	root.append(style, place);

	let dark = false;
	const listeners = new Set<() => void>();
	const theme: Themed = {
		get dark() {
			return dark;
		},
		subscribe(listener) {
			listeners.add(listener);
			return () => listeners.delete(listener);
		},
	};
	const stop = followTheme((now) => {
		dark = now;
		// Before paint, or the canvas would read the colours of the theme that is going.
		host.dataset.theme = dark ? "dark" : "light";
		for (const listener of listeners) listener();
	});
	const shown = createRoot(place);
	shown.render(<Widget playback={playback} theme={theme} />);
	return () => {
		stop();
		shown.unmount();
		host.remove();
	};
}

export default { initialize, render };
