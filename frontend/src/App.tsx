// The page as a whole: settings and theme, and where the panels stand.
import { useEffect, useState } from "react";
import { Chat } from "./chat/Chat";
import { Heatmap } from "./heatmap/Heatmap";
import { StatusBar } from "./session/StatusBar";
import type { Session } from "./session/session";
import { loadSettings, pageStorage, type Settings, saveSettings } from "./session/settings";
import { TokenForm } from "./session/TokenForm";
import { SteeringPanel } from "./steering/SteeringPanel";
import { ErrorBanner } from "./ui/ErrorBanner";
import { NoticeBanner } from "./ui/NoticeBanner";
import { useSignal } from "./ui/useSignal";

export function App({ session }: { session: Session }) {
	useSignal(session.changed);
	const [settings, setSettings] = useState(() => loadSettings(pageStorage()));
	const systemDark = useSystemDark();
	const dark = settings.theme === "system" ? systemDark : settings.theme === "dark";

	const change = (next: Settings) => {
		setSettings(next);
		saveSettings(pageStorage(), next);
	};
	// Before paint, or the canvas would read the colours of the theme that is going.
	document.documentElement.dataset.theme = dark ? "dark" : "light";

	const { notice } = session;
	return (
		<div className="page">
			<StatusBar
				session={session}
				dark={dark}
				onTheme={() => change({ ...settings, theme: dark ? "light" : "dark" })}
			/>
			<TokenForm session={session} />
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

function useSystemDark(): boolean {
	const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
	useEffect(() => {
		const query = matchMedia("(prefers-color-scheme: dark)");
		const tell = () => setDark(query.matches);
		query.addEventListener("change", tell);
		return () => query.removeEventListener("change", tell);
	}, []);
	return dark;
}
