// The page as a whole: settings and theme, and where the panels stand.
import { type ReactNode, useState } from "react";
import { Chat } from "./chat/Chat";
import { Heatmap } from "./heatmap/Heatmap";
import { StatusBar } from "./session/StatusBar";
import type { Session } from "./session/session";
import { loadSettings, type Settings, saveSettings } from "./session/settings";
import { pageStores } from "./session/storage";
import { TokenForm } from "./session/TokenForm";
import { SteeringPanel } from "./steering/SteeringPanel";
import { ErrorBanner } from "./ui/ErrorBanner";
import { NoticeBanner } from "./ui/NoticeBanner";
import { useSignal } from "./ui/useSignal";
import { useSystemDark } from "./ui/useSystemDark";

interface AppProps {
	session: Session;
	/** What stands in the head of the page besides. */
	tools?: ReactNode;
	/** What is said of the whole page, under its head. */
	banner?: ReactNode;
}

export function App({ session, tools, banner }: AppProps) {
	useSignal(session.changed);
	const [settings, setSettings] = useState(() => {
		const found = loadSettings(pageStores());
		// At once: what an earlier version kept where it does not belong is overwritten.
		saveSettings(pageStores(), found);
		return found;
	});
	const systemDark = useSystemDark();
	const dark = settings.theme === "system" ? systemDark : settings.theme === "dark";

	const change = (next: Settings) => {
		setSettings(next);
		saveSettings(pageStores(), next);
	};
	// Before paint, or the canvas would read the colours of the theme that is going.
	document.documentElement.dataset.theme = dark ? "dark" : "light";

	const { notice } = session;
	return (
		<div className="page">
			<StatusBar
				session={session}
				dark={dark}
				tools={tools}
				onTheme={() => change({ ...settings, theme: dark ? "light" : "dark" })}
			/>
			{banner}
			<TokenForm session={session} />
			<EngineFailed session={session} />
			{session.moved !== null && (
				<NoticeBanner message={session.moved} onDismiss={() => session.dismissMoved()} />
			)}
			{notice?.place === "page" && (
				<ErrorBanner message={notice.message} onDismiss={() => session.dismiss()} />
			)}
			<main className="panels">
				<Chat session={session} settings={settings} onSettings={change} />
				<Heatmap
					session={session}
					dark={dark}
					watch={settings.watch}
					onWatch={(watch) => change({ ...settings, watch })}
				/>
				<SteeringPanel session={session} settings={settings} />
			</main>
		</div>
	);
}

/** Why the engine does not run, in full: it may be long, and nothing works before somebody has acted on it. */
function EngineFailed({ session }: { session: Session }) {
	const { engine } = session.server;
	if (engine?.state !== "failed" || session.connection.state.kind !== "live") return null;
	return (
		<div className="error-banner engine-why" role="alert" data-testid="engine-failed">
			<span>{engine.stage || "The engine failed. The server's log says why."}</span>
		</div>
	);
}
