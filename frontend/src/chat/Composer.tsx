// Where the person writes. Enter sends, Shift+Enter makes a line, Escape stops the reply. Words leave the
// box only when a start was sent, and come back when the server refuses it.
import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import type { Session } from "../session/session";
import type { Settings } from "../session/settings";
import { isComposing } from "../ui/composing";
import { ErrorBanner } from "../ui/ErrorBanner";
import { SendIcon, StopIcon } from "../ui/icons";
import { useSignal } from "../ui/useSignal";
import { parseCommand, runCommand } from "./commands";

export function Composer({ session, settings }: { session: Session; settings: Settings }) {
	useSignal(session.changed);
	// What was typed waits in the session, while another page is shown over this one.
	const [text, setText] = useState(session.draft);
	const box = useRef<HTMLTextAreaElement>(null);
	const { live, notice, returned, readOnly } = session;
	const blocked = session.can.ask;
	const command = parseCommand(text);

	useEffect(() => {
		session.draft = text;
	}, [session, text]);

	useEffect(() => {
		if (returned === null) return;
		const words = session.takeReturned() ?? "";
		// Something new may have been typed meanwhile; neither is lost.
		setText((now) => (now.trim() === "" ? words : `${words}\n${now}`));
	}, [session, returned]);

	useEffect(() => {
		const stop = (event: globalThis.KeyboardEvent) => {
			if (event.key === "Escape" && !event.defaultPrevented && !isComposing(event)) session.stop();
		};
		document.addEventListener("keydown", stop);
		return () => document.removeEventListener("keydown", stop);
	}, [session]);

	// biome-ignore lint/correctness/useExhaustiveDependencies: the height follows the text
	useEffect(() => {
		const element = box.current!;
		element.style.height = "auto";
		element.style.height = `${Math.min(element.scrollHeight + 2, 180)}px`;
	}, [text]);

	const send = () => {
		if (command !== null) {
			session.aside(text.trim(), runCommand(command, session.server.vectors, session.steering));
			setText("");
		} else if (text.trim() !== "" && session.ask(text, settings)) {
			setText("");
		}
	};
	const onSubmit = (event: FormEvent) => {
		event.preventDefault();
		send();
	};
	const onKey = (event: KeyboardEvent) => {
		if (event.key !== "Enter" || event.shiftKey || isComposing(event.nativeEvent)) return;
		event.preventDefault();
		send();
	};

	return (
		<form className="composer" onSubmit={onSubmit}>
			{notice?.place === "composer" && (
				<ErrorBanner message={notice.message} onDismiss={() => session.dismiss()} />
			)}
			<div className="composer-box">
				<textarea
					ref={box}
					data-testid="prompt-input"
					rows={1}
					dir="auto"
					value={text}
					disabled={readOnly}
					aria-label={session.continues ? "Your text" : "Your message"}
					placeholder={placeholder(session)}
					onChange={(event) => setText(event.target.value)}
					onKeyDown={onKey}
				/>
				{live !== null && !readOnly ? (
					<button
						type="button"
						className="primary"
						data-testid="stop"
						disabled={live.name === null || live.delivery.stopAsked}
						onClick={() => session.stop()}
					>
						<StopIcon /> {live.delivery.stopAsked ? "Stopping" : "Stop"}
					</button>
				) : (
					<button
						type="submit"
						className="primary"
						data-testid="send"
						disabled={command === null && (blocked !== null || text.trim() === "")}
						title={command === null ? (blocked ?? "Send (Enter)") : "Act on the sliders (Enter)"}
					>
						<SendIcon /> Send
					</button>
				)}
			</div>
			<p className="composer-hint">{hintOf(session)}</p>
		</form>
	);
}

function hintOf({ can, connection, live, notebooks, readOnly }: Session): string {
	const away = readOnly || live === null || connection.state.kind !== "live";
	if (can.ask !== null && (away || notebooks.shown)) return can.ask;
	if (notebooks.shown)
		return "This text is a notebook's, without a chat to go on from: what you send begins a chat.";
	return "Enter sends, Shift+Enter makes a new line, Esc stops.";
}

function placeholder({ continues, turns, readOnly }: Session): string {
	if (readOnly) return "";
	if (!continues) return "Ask something";
	return turns.length === 0 ? "Begin a text" : "Go on with the text";
}
