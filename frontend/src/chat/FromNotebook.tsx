// The runs that notebooks have begun, while the server keeps them: a quiet list, from which one click opens a run. With
// a modifier key it opens in another tab, like any link.
import type { MouseEvent } from "react";
import type { RunNotice } from "../protocol/types.gen";
import type { Session } from "../session/session";
import { useSignal } from "../ui/useSignal";

const STATES: Record<RunNotice["state"], string> = {
	waiting: "waiting for a place",
	writing: "being written",
	finished: "",
};

export function FromNotebook({ session }: { session: Session }) {
	useSignal(session.changed);
	const { notebooks } = session;
	const shown = notebooks.shown ? session.shown : null;
	if (notebooks.runs.length === 0 && shown === null) return null;
	return (
		<section className="from-notebook" aria-label="From a notebook" data-testid="from-notebook">
			<div className="from-notebook-head">
				<h3>From a notebook</h3>
				<span className="spring" />
				{shown !== null && (
					<button
						type="button"
						className="quiet small bordered"
						data-testid="notebook-back"
						onClick={() => notebooks.back()}
					>
						{notebooks.hasChat ? "Back to the chat" : "Close"}
					</button>
				)}
			</div>
			<ul>
				{notebooks.runs.map((notice) => (
					<li key={notice.run}>
						<Notice notice={notice} current={shown?.name === notice.run} session={session} />
					</li>
				))}
			</ul>
		</section>
	);
}

function Notice({ notice, current, session }: { notice: RunNotice; current: boolean; session: Session }) {
	const { run, prompt, since, state } = notice;
	const open = (event: MouseEvent) => {
		if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
		event.preventDefault();
		session.notebooks.open(run);
	};
	return (
		<a
			className="quiet link"
			href={`#watch=${run}`}
			data-testid="notebook-run"
			data-run={run}
			data-state={state}
			aria-current={current || undefined}
			onClick={open}
		>
			{state === "finished" ? <span className="live-mark" /> : <span className="live-mark on" />}
			<bdi className="beginning">{prompt.trim().replace(/\s+/g, " ") || "(an empty text)"}</bdi>
			<span className="muted">{STATES[state] || timeOf(since)}</span>
		</a>
	);
}

/** When it was begun, on the clock of whoever looks. */
function timeOf(since: number): string {
	return new Date(since * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
