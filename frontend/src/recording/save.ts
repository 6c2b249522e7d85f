// Saving: what the page shows as a recording, the names of files, and the files themselves.
import type { Session } from "../session/session";
import { type Captured, captured } from "./capture";
import { turnIdOf } from "./play";
import type { Replay } from "./playback";
import { readRecording } from "./read";
import type { Recording } from "./recording";
import { writeRecording } from "./write";

export const SUFFIX = ".steersight.npz";
/** Characters of a question that a file's name begins with: with 4 bytes each, and the suffix, below 255 bytes. */
const LONGEST_NAME = 48;
/** Names that Windows keeps for devices, whatever follows after a dot. */
const DEVICE = /^(con|prn|aux|nul|com\d|lpt\d)$/i;

/** A file's name without its suffix, made of a title: letters and digits of any script, and dashes between them. */
export function fileName(title: string): string {
	const words = title.normalize("NFC").match(/[\p{L}\p{M}\p{N}]+/gu) ?? [];
	const name = Array.from(words.join("-")).slice(0, LONGEST_NAME).join("").replace(/-+$/, "");
	if (name === "") return "recording";
	return DEVICE.test(name) ? `${name}-recording` : name;
}

export interface SavedBytes {
	bytes: Uint8Array;
	title: string;
}

/** All of the conversation. A recording that is shown is saved as it was opened, with all that this page knows not of. */
export async function conversationBytes(
	session: Session,
	replay: Replay | null,
	now: Date,
): Promise<SavedBytes> {
	if (replay !== null) return { bytes: replay.bytes, title: replay.meta.title };
	// A reader shows the way to the last turn: the path that is on the page comes last.
	const shown = new Set(session.turns);
	const [beside, path] = [false, true].map((on) => session.tree.filter(({ turn }) => shown.has(turn) === on));
	return live(session, [...beside!, ...path!], now);
}

/** The reply on the map, with its question. */
export async function shownBytes(session: Session, replay: Replay | null, now: Date): Promise<SavedBytes> {
	const turn = session.turns.find(({ run }) => run === session.shown);
	if (turn === undefined) throw new Error("No reply is shown.");
	if (replay === null) return live(session, [{ turn, parent: null }], now);
	const part = turnOf(await readRecording(replay.bytes), turnIdOf(turn.key));
	return { bytes: await writeRecording(part), title: part.meta.title };
}

async function live(session: Session, turns: readonly Captured[], now: Date): Promise<SavedBytes> {
	const recording = await captured(turns, session.server, now, (run) => session.shelf.hold(run));
	return { bytes: await writeRecording(recording), title: recording.meta.title };
}

/** One turn of a recording as a recording of its own. Where there are no turns, the id is the index of a run. */
export function turnOf({ meta, runs }: Recording, id: string): Recording {
	const found = meta.turns.find((turn) => turn.id === id);
	const wanted = found === undefined ? [Number(id)] : [...new Set([...found.before, found.run])];
	const at = (old: number) => wanted.indexOf(old);
	const turns =
		found === undefined ? [] : [{ ...found, parent: null, before: found.before.map(at), run: at(found.run) }];
	return {
		meta: {
			...meta,
			title: found?.user.trim()
				? Array.from(found.user.trim().replace(/\s+/g, " ")).slice(0, 120).join("")
				: meta.title,
			turns,
			runs: wanted.map((index) => meta.runs[index]!),
		},
		runs: wanted.map((index) => runs[index]!),
	};
}
