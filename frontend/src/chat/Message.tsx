// One turn: what the person asked and the reply beneath it. The reply's text belongs to TokenText; React
// renders this only when the turn's status changes.
import { memo, type PointerEvent, useEffect, useRef } from "react";
import type { Turn } from "../session/conversation";
import type { Session } from "../session/session";
import { isLive, type RunPhase } from "../store/phase";
import type { Run } from "../store/run";
import { pageBatch } from "../store/signal";
import { ErrorBanner } from "../ui/ErrorBanner";
import { AgainIcon } from "../ui/icons";
import { endingOf } from "./notes";
import { TokenText } from "./tokenText";

interface MessageProps {
	session: Session;
	turn: Turn;
	/** The reply continues the person's text: both are shown as one. */
	continues: boolean;
	phase: RunPhase;
	/** The server's name of the run, once it has one. */
	name: string | null;
	shown: boolean;
	problem: string | null;
	/** What it waits for, and what else is so with it: sentences, or null. */
	waiting: string | null;
	note: string | null;
	/** The model that wrote it, where that is another than the one that is served now. */
	by: string | null;
	/** What wrote it, or "". */
	writer: string;
	/** Names of the edits that acted in it, or "". */
	edits: string;
	/** Address of this reply for another tab, or null where there is none. */
	watch: string | null;
	/** Which of so many turns in this place it is, from 0. */
	at: number;
	of: number;
	/** Whether another of them may be shown now. */
	choosable: boolean;
	onRegenerate: (() => void) | null;
}

interface BranchesProps {
	at: number;
	of: number;
	choosable: boolean;
	onStep(step: number): void;
}

/** The turns that stand in one place: which of them is shown, and the way to its neighbours. */
function Branches({ at, of, choosable, onStep }: BranchesProps) {
	const step = (by: number, label: string, id: string) => (
		<button
			type="button"
			className="quiet small"
			data-testid={id}
			aria-label={label}
			title={choosable ? label : "A reply is being written"}
			disabled={!choosable || at + by < 0 || at + by >= of}
			onClick={() => onStep(by)}
		>
			{by < 0 ? "\u2039" : "\u203a"}
		</button>
	);
	return (
		<span className="branches">
			{step(-1, "The one before", "branch-before")}
			<span data-testid="branch">
				{at + 1} / {of}
			</span>
			{step(1, "The next one", "branch-next")}
		</span>
	);
}

export const Message = memo(function Message(props: MessageProps) {
	const {
		session,
		turn,
		continues,
		phase,
		name,
		shown,
		problem,
		waiting,
		note,
		by,
		writer,
		edits,
		watch,
		at,
		of,
		choosable,
		onRegenerate,
	} = props;
	const live = isLive(phase);
	return (
		<div className="turn">
			{/* What somebody else asked is not known before the prompt is. */}
			{turn.user !== "" && !continues && (
				<div className="message message-user" data-testid="message-user" dir="auto">
					{turn.user}
				</div>
			)}
			<div
				className={shown ? "message message-assistant shown" : "message message-assistant"}
				data-testid="message-assistant"
				data-run={name ?? ""}
				data-status={live ? "streaming" : "done"}
			>
				<div className="reply" dir="auto">
					{continues && (
						<span className="given" data-testid="message-user">
							{turn.user}
						</span>
					)}
					{turn.before.map((run) => (
						<ReplyText key={run.id} session={session} run={run} />
					))}
					<ReplyText key={turn.run.id} session={session} run={turn.run} />
				</div>
				{waiting !== null && (
					<span className="waiting" data-testid="waiting">
						{waiting}
					</span>
				)}
				{/* What it waits for is spoken once, and not how the queue before it moves. */}
				<span className="sr-only" role="status">
					{waiting?.split(":")[0]}
				</span>
				{note !== null && (
					<p className="turn-note" role="status" data-testid="turn-note">
						{note}
					</p>
				)}
				{problem !== null && <ErrorBanner message={problem} />}
				<div className="message-tools">
					{turn.run.origin === "notebook" && (
						<span className="writer" data-testid="from">
							From a notebook
						</span>
					)}
					{writer !== "" && (
						<span className="writer" data-testid="writer">
							{writer}
						</span>
					)}
					{edits !== "" && (
						<span className="writer" data-testid="edits-of">
							Edited by <bdi>{edits}</bdi>
						</span>
					)}
					{!live && (
						<span className="ending" data-testid="ending">
							{endingOf(turn.run)}
						</span>
					)}
					{by !== null && (
						<span className="written-by" data-testid="written-by">
							Written by <bdi>{by}</bdi>
						</span>
					)}
					{of > 1 && (
						<Branches at={at} of={of} choosable={choosable} onStep={(step) => session.goBeside(turn, step)} />
					)}
					<span className="spring" />
					{watch !== null && (
						<a
							className="quiet small link"
							data-testid="watch-tab"
							href={watch}
							// biome-ignore lint/security/noBlankTarget: the new tab is this page, and needs this one's token
							target="_blank"
							rel="opener"
						>
							Watch in another tab
						</a>
					)}
					{!shown && (
						<button type="button" className="quiet small" onClick={() => session.show(turn.run)}>
							Show in heatmap
						</button>
					)}
					{onRegenerate !== null && (
						<button type="button" className="quiet small" data-testid="regenerate" onClick={onRegenerate}>
							<AgainIcon /> Regenerate
						</button>
					)}
				</div>
			</div>
		</div>
	);
});

function ReplyText({ session, run }: { session: Session; run: Run }) {
	const root = useRef<HTMLSpanElement>(null);

	useEffect(() => {
		const text = new TokenText(root.current!, run, session.labelOf);
		const light = () => {
			const { cursor } = session.cursor;
			text.light(cursor?.run === run.id ? cursor.position : null);
		};
		const sync = () => {
			if (shown && !text.sync()) pageBatch.add(sync);
			light();
		};
		let shown = true;
		sync();
		const stops = [run.changed.subscribe(sync), session.cursor.changed.subscribe(light)];
		return () => {
			shown = false;
			for (const stop of stops) stop();
		};
	}, [session, run]);

	const onOver = (event: PointerEvent) => {
		const token = (event.target as Element).closest<HTMLElement>(".token");
		if (token === null || session.shown !== run) return;
		session.cursor.set({ run: run.id, position: Number(token.dataset.position), layer: null, by: "text" });
	};
	const onLeave = () => {
		if (session.cursor.cursor?.by === "text") session.cursor.set(null);
	};
	return <span className="reply-text" ref={root} onPointerOver={onOver} onPointerLeave={onLeave} />;
}
