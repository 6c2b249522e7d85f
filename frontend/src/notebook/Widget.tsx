// One run in a notebook: its map, its text and its sliders, made of the page's own panels. Nothing can be asked from here,
// that is what the cells are for.
import { type ReactNode, useEffect, useRef, useSyncExternalStore } from "react";
import { Message } from "../chat/Message";
import { noteOf, waitingFor, writerOf } from "../chat/notes";
import { Heatmap } from "../heatmap/Heatmap";
import type { Playback } from "../recording/playback";
import type { Session } from "../session/session";
import { SteeringPanel } from "../steering/SteeringPanel";
import type { Run } from "../store/run";
import { ErrorBanner } from "../ui/ErrorBanner";
import { useSignal } from "../ui/useSignal";

export interface Themed {
	readonly dark: boolean;
	subscribe(listener: () => void): () => void;
}

export function Widget({ playback, theme }: { playback: Playback; theme: Themed }) {
	useSignal(playback.changed);
	const dark = useSyncExternalStore(theme.subscribe, () => theme.dark);
	const session = playback.replay?.session ?? playback.live;
	return (
		<div className="widget" data-testid="steersight-widget" data-theme={dark ? "dark" : "light"}>
			{playback.problem !== null && (
				<ErrorBanner message={playback.problem} onDismiss={() => playback.dismiss()} />
			)}
			{session !== null && <Shown key={playback.replay?.serial ?? 0} session={session} dark={dark} />}
		</div>
	);
}

function Shown({ session, dark }: { session: Session; dark: boolean }) {
	useSignal(session.changed);
	const run = session.shown;
	const turn = session.turns.find((one) => one.run === run);
	const { notice } = session;
	return (
		<>
			<Line session={session} />
			{notice?.place === "page" && (
				<ErrorBanner message={notice.message} onDismiss={() => session.dismiss()} />
			)}
			<Heatmap session={session} dark={dark} />
			{run !== null && turn !== undefined && (
				<Tail run={run}>
					<Message
						session={session}
						turn={turn}
						continues={run.origin === "notebook" || run.tokens.continues}
						phase={run.delivery.phase}
						name={run.name}
						shown={true}
						problem={run.problem?.message ?? null}
						waiting={waitingFor(run)}
						note={noteOf(run)}
						by={null}
						writer={writerOf(run, session.server.adapters)}
						edits={run.edits.join(", ")}
						watch={null}
						at={0}
						of={1}
						choosable={false}
						onRegenerate={null}
					/>
				</Tail>
			)}
			<SteeringPanel session={session} settings={null} />
		</>
	);
}

/** The reply, whose end is in view until somebody scrolls away from it. */
function Tail({ run, children }: { run: Run; children: ReactNode }) {
	const box = useRef<HTMLElement>(null);
	const stuck = useRef(true);
	useEffect(() => {
		const element = box.current!;
		const stick = () => {
			if (stuck.current) element.scrollTop = element.scrollHeight;
		};
		stick();
		return run.changed.subscribe(stick);
	}, [run]);
	const onScroll = () => {
		const element = box.current!;
		stuck.current = element.scrollHeight - element.clientHeight - element.scrollTop < 24;
	};
	return (
		// biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region must be reachable by keyboard
		<section className="panel widget-text" aria-label="Reply" tabIndex={0} ref={box} onScroll={onScroll}>
			{children}
		</section>
	);
}

/** Why nothing new comes, while that is so. */
function Line({ session }: { session: Session }): ReactNode {
	const { state } = session.connection;
	if (state.kind === "live") return null;
	const words = {
		connecting: "Waiting for the kernel, which answers when no cell is being run.",
		reconnecting: state.kind === "reconnecting" ? state.why : "",
		"given-up": state.kind === "given-up" ? state.message : "",
	}[state.kind];
	return (
		<p className="widget-line" role="status" data-testid="widget-line" data-state={state.kind}>
			{words}
		</p>
	);
}
