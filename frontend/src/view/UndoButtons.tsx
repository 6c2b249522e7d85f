// Steps back and forth over sliders, view and branch, by button and by key.
import { useEffect } from "react";
import { RedoIcon, UndoIcon } from "../ui/icons";
import { useSignal } from "../ui/useSignal";
import type { History } from "./history";

export function UndoButtons({ history }: { history: History }) {
	useSignal(history.changed);
	useEffect(() => {
		const onKey = (event: KeyboardEvent) => {
			const move = movedBy(event);
			if (move === null || isTyping(event.target)) return;
			event.preventDefault();
			history[move]();
		};
		document.addEventListener("keydown", onKey);
		return () => document.removeEventListener("keydown", onKey);
	}, [history]);
	const { undoable, redoable } = history;
	return (
		<span className="undo-buttons">
			<button
				type="button"
				className="quiet"
				data-testid="undo"
				aria-label={undoable === null ? "Undo" : `Undo: ${undoable}`}
				title={undoable === null ? "Nothing to undo" : `Undo: ${undoable} (Ctrl+Z)`}
				disabled={undoable === null}
				onClick={() => history.undo()}
			>
				<UndoIcon />
			</button>
			<button
				type="button"
				className="quiet"
				data-testid="redo"
				aria-label={redoable === null ? "Redo" : `Redo: ${redoable}`}
				title={redoable === null ? "Nothing to redo" : `Redo: ${redoable} (Ctrl+Shift+Z)`}
				disabled={redoable === null}
				onClick={() => history.redo()}
			>
				<RedoIcon />
			</button>
		</span>
	);
}

/** Which way the keys of an event move, by the habits of all systems; null for other keys. */
export function movedBy(
	event: Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "shiftKey" | "altKey">,
): "undo" | "redo" | null {
	if (event.altKey || !(event.ctrlKey || event.metaKey)) return null;
	const key = event.key.toLowerCase();
	if (key === "z") return event.shiftKey ? "redo" : "undo";
	return key === "y" && event.ctrlKey && !event.shiftKey ? "redo" : null;
}

/** Where text is written, those keys take back what was written. */
function isTyping(target: EventTarget | null): boolean {
	if (!(target instanceof HTMLElement)) return false;
	if (target instanceof HTMLInputElement)
		return !["range", "checkbox", "radio", "button"].includes(target.type);
	return target.isContentEditable || target.tagName === "TEXTAREA";
}
