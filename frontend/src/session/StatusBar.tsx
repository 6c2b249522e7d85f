// Top of the page: which model, how the engine and the connection are, and the theme.
import { type ReactNode, Suspense, useEffect, useState } from "react";
import type { ConnectionState } from "../connection/phase";
import type { EngineStatus } from "../protocol/types.gen";
import { Mark, MoonIcon, SunIcon } from "../ui/icons";
import { lazily } from "../ui/lazily";
import { useSignal } from "../ui/useSignal";
import { UndoButtons } from "../view/UndoButtons";
import type { Session } from "./session";

const ModelDialog = lazily(async () => (await import("../models/ModelDialog")).ModelDialog);

interface StatusBarProps {
	session: Session;
	dark: boolean;
	/** What else is in reach on any page. */
	tools?: ReactNode;
	onTheme(): void;
}

export function StatusBar({ session, dark, tools, onTheme }: StatusBarProps) {
	useSignal(session.changed);
	return (
		<header className="status-bar">
			<h1>
				<Mark /> Steersight
			</h1>
			<ServedModel session={session} />
			<span className="server-name" data-testid="server-name" title="The server's name" dir="auto">
				{session.server.name}
			</span>
			<span className="spring" />
			{/* A recording has neither. */}
			{!session.readOnly && (
				<>
					<EngineState session={session} />
					<ConnectionBadge session={session} />
				</>
			)}
			<UndoButtons history={session.history} />
			{tools}
			<button
				type="button"
				className="quiet"
				data-testid="theme-toggle"
				aria-label={dark ? "Use the light theme" : "Use the dark theme"}
				title={dark ? "Light" : "Dark"}
				onClick={onTheme}
			>
				{dark ? <SunIcon /> : <MoonIcon />}
			</button>
		</header>
	);
}

/** Which model it is; and, where the server lets this page change it, the way to another. */
function ServedModel({ session }: { session: Session }) {
	const [choosing, setChoosing] = useState(false);
	const { model, engine, changeModel } = session.server;
	const about = model === null ? undefined : `${model.layers} layers, ${model.dtype}`;
	const name = (
		<span className="model" data-testid="model" title={about}>
			{model?.id ?? ""}
		</span>
	);
	if (!changeModel || session.connection.state.kind !== "live") return name;
	const possible = engine?.state === "ready" || engine?.state === "failed";
	return (
		<span className="model-choice">
			{name}
			<button
				type="button"
				className="quiet small"
				data-testid="change-model"
				aria-label="Change the model"
				title={possible ? "Change the model of this server" : "The engine is not ready"}
				disabled={!possible}
				onClick={() => setChoosing(true)}
			>
				Change
			</button>
			{choosing && (
				<Suspense>
					<ModelDialog session={session} onClose={() => setChoosing(false)} />
				</Suspense>
			)}
		</span>
	);
}

function EngineState({ session }: { session: Session }) {
	// What a lost server said last is no longer known to be true.
	const engine = session.connection.state.kind === "live" ? session.server.engine : null;
	const state = engine?.state ?? "unknown";
	return (
		<>
			<span
				className={`badge engine-${state}`}
				data-testid="engine-state"
				data-state={state}
				data-progress={engine?.progress}
				title={engine?.stage}
			>
				<span className="dot" />
				<span className="badge-words">{engineWords(engine)}</span>
				{engine?.state === "loading" && (
					<progress value={engine.progress} max={1} aria-label="Engine loading" />
				)}
			</span>
			{/* Spoken once for each state, and not for each step of loading. */}
			<span className="sr-only" role="status">
				{engine !== null && stateWords(engine)}
			</span>
		</>
	);
}

function engineWords(engine: EngineStatus | null): string {
	if (engine === null) return "Engine unknown";
	return engine.state === "loading" && engine.stage !== "" ? engine.stage : stateWords(engine);
}

/** A failed engine's reason is too long for here; the page says it below. */
function stateWords({ state, stage }: EngineStatus): string {
	return state === "draining" ? stage || "The server is about to end" : `Engine ${state}`;
}

function ConnectionBadge({ session }: { session: Session }) {
	const { state } = session.connection;
	const now = useNow(state.kind === "reconnecting");
	const again =
		state.kind === "reconnecting" || (state.kind === "given-up" && state.reason !== "unauthorized");
	return (
		<span className="connection">
			<span
				className={`badge connection-${state.kind}`}
				data-testid="connection-state"
				data-state={state.kind}
				title={state.kind === "reconnecting" ? state.why : undefined}
			>
				<span className="dot" />
				<span className="badge-words">{connectionWords(state, now)}</span>
				{state.kind === "live" && <Latency session={session} />}
			</span>
			{/* Spoken without what changes all the time: the seconds to the next try, the latency. */}
			<span className="sr-only" role="status">
				{state.kind === "reconnecting" ? "Reconnecting" : connectionWords(state, now)}
			</span>
			{again && (
				<button type="button" className="quiet small" onClick={() => session.connection.retryNow()}>
					Try now
				</button>
			)}
		</span>
	);
}

function Latency({ session }: { session: Session }) {
	useSignal(session.pinged);
	const { latency } = session;
	if (latency === null) return null;
	return (
		<span className="latency" title="Time for one ping to come back">
			{latency < 10 ? latency.toFixed(1) : Math.round(latency)} ms
		</span>
	);
}

export function connectionWords(state: ConnectionState, now: number): string {
	switch (state.kind) {
		case "connecting":
			return "Connecting";
		case "live":
			return "Live";
		case "reconnecting":
			return `Reconnecting in ${Math.max(0, Math.ceil((state.retryAt - now) / 1000))} s`;
		case "given-up":
			return state.reason === "unauthorized" ? "A token is needed" : state.message;
	}
}

/** The page's clock, told four times a second while somebody counts down. */
function useNow(running: boolean): number {
	const [now, setNow] = useState(() => performance.now());
	useEffect(() => {
		if (!running) return;
		setNow(performance.now());
		const timer = setInterval(() => setNow(performance.now()), 250);
		return () => clearInterval(timer);
	}, [running]);
	return now;
}
