// Open and Save, in the head of every page: a file is opened whatever the page shows, and what it shows is saved.
import { useRef, useState } from "react";
import type { Session } from "../session/session";
import { download } from "../ui/download";
import { OpenIcon, SaveIcon } from "../ui/icons";
import { Menu } from "../ui/Menu";
import { useSignal } from "../ui/useSignal";
import { fileBytes } from "./doors";
import { type Playback, recordingFiles } from "./playback";

export function OpenButton({ playback }: { playback: Playback }) {
	useSignal(playback.changed);
	const chooser = useRef<HTMLInputElement>(null);
	return (
		<>
			<button
				type="button"
				className="quiet tool"
				data-testid="open-recording"
				title="Open a recording. It can also be dropped anywhere on this page."
				disabled={playback.opening !== null}
				onClick={() => chooser.current?.click()}
			>
				<OpenIcon /> <span>{playback.opening === null ? "Open" : "Opening…"}</span>
			</button>
			<input
				ref={chooser}
				type="file"
				hidden
				data-testid="recording-file"
				accept=".npz"
				onChange={(event) => {
					const file = event.target.files?.[0];
					// The same file may be chosen again.
					event.target.value = "";
					if (file !== undefined) void playback.open(file.name, () => fileBytes(file));
				}}
			/>
		</>
	);
}

export function SaveMenu({ session, playback }: { session: Session; playback: Playback }) {
	useSignal(session.changed);
	const [saving, setSaving] = useState(false);
	const { replay } = playback;
	const empty = session.turns.length === 0;

	const save = async (make: () => Promise<[Blob, string]>) => {
		setSaving(true);
		try {
			download(...(await make()));
		} catch (error) {
			playback.fail(`Nothing was saved. ${(error as Error).message}`);
		}
		setSaving(false);
	};
	const file = (which: "conversationBytes" | "shownBytes") => async (): Promise<[Blob, string]> => {
		const { [which]: bytes, fileName, SUFFIX } = await recordingFiles();
		const made = await bytes(session, replay, new Date());
		return [new Blob([made.bytes as Uint8Array<ArrayBuffer>]), fileName(made.title) + SUFFIX];
	};
	const page = async (): Promise<[Blob, string]> => {
		const { conversationBytes, fileName, pageWith } = await recordingFiles();
		const { bytes, title } = await conversationBytes(session, replay, new Date());
		const named = title === "" ? "Steersight" : `${title} – Steersight`;
		return [await pageWith(bytes, named, document), `${fileName(title)}.html`];
	};
	return (
		<Menu
			testid="save-recording"
			title={empty ? "There is no reply to save yet" : "Save what this page shows"}
			disabled={empty || saving}
			label={
				<>
					<SaveIcon /> <span>{saving ? "Saving…" : "Save"}</span>
				</>
			}
			items={[
				{
					label: "Conversation",
					hint: "a recording: opens here and in Python",
					testid: "save-conversation",
					onChoose: () => void save(file("conversationBytes")),
				},
				{
					label: "Reply on the map",
					hint: "a recording of this reply alone",
					testid: "save-shown",
					disabled: session.shown === null,
					onChoose: () => void save(file("shownBytes")),
				},
				{
					label: "Conversation as a page",
					hint: "HTML: opens in any browser, without a server",
					testid: "save-page",
					onChoose: () => void save(page),
				},
			]}
		/>
	);
}
