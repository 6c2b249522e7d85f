// What the page shows: the live session, or a recording over it. The live one goes on while a recording is shown.
import { useEffect } from "react";
import { App } from "./App";
import { RecordingBanner } from "./recording/Banner";
import { DropArea } from "./recording/DropArea";
import type { Playback } from "./recording/playback";
import { OpenButton, SaveMenu } from "./recording/Tools";
import { ErrorBanner } from "./ui/ErrorBanner";
import { Mark } from "./ui/icons";
import { useSignal } from "./ui/useSignal";
import { useSystemDark } from "./ui/useSystemDark";

export function Page({ playback }: { playback: Playback }) {
	useSignal(playback.changed);
	const { replay, live, opening, problem } = playback;
	const session = replay?.session ?? live;
	const wrong = problem !== null && <ErrorBanner message={problem} onDismiss={() => playback.dismiss()} />;
	const spoken = (
		<p className="sr-only" role="status">
			{opening !== null ? "Opening a recording." : replay !== null ? "A recording is shown." : ""}
		</p>
	);
	return (
		<>
			{session === null ? (
				<Empty playback={playback}>{wrong}</Empty>
			) : (
				// A session for its whole life: what is open in the panels belongs to it.
				<App
					key={replay?.serial ?? 0}
					session={session}
					tools={
						<>
							<OpenButton playback={playback} />
							<SaveMenu session={session} playback={playback} />
						</>
					}
					banner={
						<>
							{replay !== null && <RecordingBanner playback={playback} replay={replay} />}
							{wrong}
						</>
					}
				/>
			)}
			{spoken}
			<DropArea playback={playback} />
		</>
	);
}

/** There is no server behind the page, and no recording was opened. */
function Empty({ playback, children }: { playback: Playback; children: React.ReactNode }) {
	const dark = useSystemDark();
	useEffect(() => {
		document.documentElement.dataset.theme = dark ? "dark" : "light";
	}, [dark]);
	return (
		<div className="page">
			<header className="status-bar">
				<h1>
					<Mark /> Steersight
				</h1>
				<span className="spring" />
				<OpenButton playback={playback} />
			</header>
			{children}
			<main className="welcome" data-testid="no-recording">
				<h3>{playback.opening === null ? "No recording is open" : "The recording is being opened"}</h3>
				<p className="muted">Drop a recording here, or open one. Its name ends in .steersight.npz.</p>
			</main>
		</div>
	);
}
