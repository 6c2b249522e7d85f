// A file may be dropped anywhere on the page. A dialog takes its own files, and a field for files too.
import { useEffect, useState } from "react";
import { fileBytes } from "./doors";
import type { Playback } from "./playback";

export function DropArea({ playback }: { playback: Playback }) {
	const [over, setOver] = useState(false);

	useEffect(() => {
		const ours = (event: DragEvent) =>
			event.dataTransfer?.types.includes("Files") === true && document.querySelector("dialog[open]") === null;
		const onOver = (event: DragEvent) => {
			if (!ours(event)) return;
			// Without this the browser would leave the page for the file.
			event.preventDefault();
			setOver(true);
		};
		const onLeave = (event: DragEvent) => {
			if (event.relatedTarget === null) setOver(false);
		};
		const onDrop = (event: DragEvent) => {
			setOver(false);
			if (!ours(event)) return;
			event.preventDefault();
			const file = event.dataTransfer?.files[0];
			if (file !== undefined) void playback.open(file.name, () => fileBytes(file));
		};
		window.addEventListener("dragover", onOver);
		window.addEventListener("dragleave", onLeave);
		window.addEventListener("drop", onDrop);
		return () => {
			window.removeEventListener("dragover", onOver);
			window.removeEventListener("dragleave", onLeave);
			window.removeEventListener("drop", onDrop);
		};
	}, [playback]);

	return over ? (
		<div className="drop-area" data-testid="drop-area">
			<p>Drop a recording to open it</p>
		</div>
	) : null;
}
