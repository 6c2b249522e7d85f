// The conversation: turns, what the running reply measures, and the composer. The list follows its end
// until the person scrolls up.
import { Fragment, useEffect, useRef, useState } from "react";
import type { Turn } from "../session/conversation";
import type { Session } from "../session/session";
import type { Settings } from "../session/settings";
import { PlusIcon, SettingsIcon } from "../ui/icons";
import { useSignal } from "../ui/useSignal";
import { Composer } from "./Composer";
import { FromNotebook } from "./FromNotebook";
import { Message } from "./Message";
import { noteOf, waitingFor, writerOf } from "./notes";
import { RunStats } from "./RunStats";
import { SettingsPanel } from "./SettingsPanel";

interface ChatProps {
	session: Session;
	settings: Settings;
	onSettings(settings: Settings): void;
}

export function Chat({ session, settings, onSettings }: ChatProps) {
	useSignal(session.changed);
	const [open, setOpen] = useState(false);
	const last = session.turns.at(-1);
	const blocked = session.can.ask !== null;
	const { adapters } = session.server;
	return (
		<section className="panel chat" aria-label="Chat">
			<header className="panel-head">
				<h2>{session.continues ? "Text" : "Chat"}</h2>
				<span className="spring" />
				{!session.readOnly && (
					<>
						<button
							type="button"
							className="quiet"
							data-testid="settings"
							aria-expanded={open}
							aria-controls="settings-panel"
							onClick={() => setOpen(!open)}
						>
							<SettingsIcon /> Settings
						</button>
						<button
							type="button"
							className="quiet"
							data-testid="new-chat"
							disabled={session.turns.length === 0 && session.asides.length === 0 && settings.system === ""}
							onClick={() => {
								session.newChat();
								onSettings({ ...settings, system: "" });
							}}
						>
							<PlusIcon /> {session.continues ? "New text" : "New chat"}
						</button>
					</>
				)}
			</header>
			{open && (
				<SettingsPanel
					settings={settings}
					continues={session.continues}
					adapters={adapters}
					template={session.server.model?.template ?? []}
					onChange={onSettings}
					onClose={() => setOpen(false)}
				/>
			)}
			<FromNotebook session={session} />
			<MessageList session={session}>
				{session.turns.length === 0 && session.asides.length === 0 && <Welcome session={session} />}
				<Asides session={session} after={0} />
				{session.turns.map((turn, index) => (
					<Fragment key={turn.key}>
						<Message
							session={session}
							turn={turn}
							continues={continuesIn(turn, session)}
							phase={turn.run.delivery.phase}
							name={turn.run.name}
							shown={session.shown === turn.run}
							problem={turn.run.problem?.message ?? null}
							waiting={waitingFor(turn.run)}
							note={noteOf(turn.run)}
							by={turn.run.model === session.server.model?.id ? null : turn.run.model}
							writer={writerOf(turn.run, adapters)}
							edits={turn.run.edits.join(", ")}
							{...session.placeOf(turn)}
							choosable={session.live === null}
							watch={session.shown === turn.run ? session.watchLink(turn.run) : null}
							onRegenerate={
								turn === last && !blocked && !turn.run.delivery.live && turn.run.origin === "chat"
									? () => session.regenerate(settings)
									: null
							}
						/>
						<Asides session={session} after={index + 1} />
					</Fragment>
				))}
			</MessageList>
			{last !== undefined && <RunStats run={session.shown ?? last.run} />}
			<Composer session={session} settings={settings} />
		</section>
	);
}

/** Whether a turn is one text that goes on. */
function continuesIn({ run }: Turn, { continues }: Session): boolean {
	if (run.origin === "notebook") return true;
	return run.model === null ? continues : run.tokens.continues;
}

/** Commands and their answers, which the model never sees. Those of turns that went stand at the end. */
function Asides({ session, after }: { session: Session; after: number }) {
	const end = session.turns.length;
	const here = session.asides.filter((aside) => Math.min(aside.after, end) === after);
	return here.map(({ key, said, answer }) => (
		<div key={key} className="aside" data-testid="aside">
			<p className="aside-said" dir="auto">
				{said}
			</p>
			<p role="status">{answer}</p>
		</div>
	));
}

function MessageList({ session, children }: { session: Session; children: React.ReactNode }) {
	const list = useRef<HTMLDivElement>(null);
	const stuck = useRef(true);
	const run = session.turns.at(-1)?.run;
	const asides = session.asides.length;

	// biome-ignore lint/correctness/useExhaustiveDependencies: a new aside is scrolled to like a new turn
	useEffect(() => {
		const element = list.current!;
		const stick = () => {
			if (stuck.current) element.scrollTop = element.scrollHeight;
		};
		stuck.current = true;
		stick();
		// Height also changes without tokens: the settings open, the window turns.
		const resizes = new ResizeObserver(stick);
		resizes.observe(element);
		const unsubscribe = run?.changed.subscribe(stick);
		return () => {
			resizes.disconnect();
			unsubscribe?.();
		};
	}, [run, asides]);

	const onScroll = () => {
		const element = list.current!;
		stuck.current = element.scrollHeight - element.clientHeight - element.scrollTop < 24;
	};
	return (
		// biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region must be reachable by keyboard
		<section className="messages" ref={list} onScroll={onScroll} tabIndex={0} aria-label="Conversation">
			{children}
		</section>
	);
}

function Welcome({ session }: { session: Session }) {
	const engine = session.server.engine;
	if (engine?.state === "loading") {
		return (
			<div className="welcome">
				<h3>The engine is loading</h3>
				<p>{engine.stage}</p>
				<progress value={engine.progress} max={1} aria-label="Loading" />
				<p className="muted">This page turns live by itself. You can write your question already.</p>
			</div>
		);
	}
	if (session.continues) {
		return (
			<div className="welcome">
				<h3>This model continues your text</h3>
				<p className="muted">
					{session.server.model?.id} is a base model: it knows no questions and answers. Write the beginning
					of a text, and it goes on from there.
				</p>
			</div>
		);
	}
	return (
		<div className="welcome">
			<h3>Watch a model think, and steer it</h3>
			<p className="muted">
				Ask something. The map shows each layer at each token while the reply is written; a slider acts on the
				very next token.
			</p>
		</div>
	);
}
