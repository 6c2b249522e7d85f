// The recording that the page shows, if any: opened from bytes, with a session of its own over it. The live session, where
// there is one, is not touched: it goes on in the background and is shown again when the recording is put away.
import { ApiError } from "../connection/http";
import { Session } from "../session/session";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import { later, NotLoadedError } from "../ui/later";
import { RecordingError } from "./error";
import type { Meta } from "./meta";
import type { Recording } from "./recording";

type Files = typeof import("./files");

/** What reads, plays and writes recordings. */
export const recordingFiles = later(() => import("./files"));

export interface Replay {
	/** Another one for each that is opened. */
	readonly serial: number;
	readonly meta: Meta;
	/** As it was opened. */
	readonly bytes: Uint8Array;
	readonly session: Session;
}

export class Playback {
	readonly changed: Signal;
	replay: Replay | null = null;
	/** What is being opened, by its name. */
	opening: string | null = null;
	/** Why the last file was not opened or saved, as a sentence. */
	problem: string | null = null;
	/** Of several files that are opened, the last stays. */
	#life = 0;

	constructor(
		/** What the page shows without a recording; null where there is no server behind it. */
		readonly live: Session | null,
		private readonly batch: FrameBatch = pageBatch,
	) {
		this.changed = new Signal(batch);
	}

	/** Open what `read` brings. What is shown stays until it has been read, and where it cannot be. */
	async open(name: string, read: () => Promise<Uint8Array>): Promise<void> {
		this.#life += 1;
		const life = this.#life;
		this.opening = name;
		this.problem = null;
		this.changed.changed();
		let found: { bytes: Uint8Array; recording: Recording; files: Files } | null = null;
		let problem: string | null = null;
		try {
			const [files, bytes] = [await recordingFiles(), await read()];
			found = { bytes, recording: await files.readRecording(bytes), files };
		} catch (error) {
			// Whatever it is: a file must not take the page with it.
			const known = [RecordingError, ApiError, NotLoadedError].some((kind) => error instanceof kind);
			const why = known ? (error as Error).message : "It cannot be read.";
			if (!known) console.warn(error);
			problem = `“${shortened(name)}” was not opened. ${why}`;
		}
		if (life !== this.#life) return;
		this.opening = null;
		this.problem = problem;
		if (found !== null) this.#show(found.bytes, found.recording, found.files);
		this.changed.changed();
	}

	/** Put the recording away. */
	close(): void {
		this.#life += 1;
		this.opening = null;
		this.problem = null;
		this.#end();
		this.changed.changed();
	}

	fail(message: string): void {
		this.problem = message;
		this.changed.changed();
	}

	dismiss(): void {
		this.problem = null;
		this.changed.changed();
	}

	#show(bytes: Uint8Array, recording: Recording, files: Files): void {
		this.#end();
		const source = files.recordingTransport(recording);
		const session = new Session(source, null, this.batch, undefined, files.READ_ONLY);
		session.play(files.playTurns(recording.meta));
		session.connection.connect();
		this.replay = { serial: this.#life, meta: recording.meta, bytes, session };
	}

	#end(): void {
		this.replay?.session.connection.close();
		this.replay = null;
	}
}

function shortened(name: string): string {
	const letters = Array.from(name);
	return letters.length > 60 ? `${letters.slice(0, 59).join("")}…` : name;
}
