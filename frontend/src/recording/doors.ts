// The ways by which a recording comes to the page, as bytes: a file that was chosen or dropped, an address beside the
// page's own, and a page that carries one in itself. Sizes are bounded before anything is read.
import { Http } from "../connection/http";
import { inFragment, withoutPart } from "../session/fragment";
import { Breath } from "./breath";
import { RecordingError } from "./error";
import { MOST_BYTES } from "./zip";

/** What an address says after its #: which recording, and whether there is no server behind the page. */
export interface Addressed {
	path: string;
	only: boolean;
}

const TOO_LARGE = `It is larger than ${MOST_BYTES / 2 ** 20} MiB, which is more than a page opens.`;
/** Characters of base64 that are decoded at once: a multiple of 4. */
const SLICE = 2 ** 20;

export function recordingIn(hash: string): Addressed | null {
	const path = inFragment(hash, "recording");
	return path === null ? null : { path, only: inFragment(hash, "only") !== null };
}

export function withoutRecording(hash: string): string {
	return withoutPart(`#${withoutPart(hash, "recording")}`, "only");
}

export async function fileBytes(file: Blob): Promise<Uint8Array> {
	if (file.size > MOST_BYTES) throw new RecordingError(TOO_LARGE);
	try {
		return new Uint8Array(await file.arrayBuffer());
	} catch {
		// A folder, or a file that has gone since.
		throw new RecordingError("The browser cannot read it.");
	}
}

/**
 * The bytes at an address beside `page`. Only a relative one, of the same origin: a link must not make the page fetch
 * from elsewhere, and the token is said to no other server.
 */
export async function bytesAt(path: string, page: string, token: () => string | null): Promise<Uint8Array> {
	const url = URL.canParse(path, page) ? new URL(path, page) : null;
	const elsewhere = /^([a-z][a-z0-9+.-]*:|[/\\]{2})/i.test(path.trim());
	if (url === null || elsewhere || url.origin !== new URL(page).origin) {
		throw new RecordingError("The address of a recording must be a path on this server.");
	}
	const { body } = await new Http(token).ask(url.href);
	if (body === null) return new Uint8Array(0);
	const pieces: Uint8Array<ArrayBuffer>[] = [];
	let length = 0;
	const reader = body.getReader();
	for (;;) {
		const { done, value } = await reader.read();
		if (done) break;
		length += value.length;
		if (length > MOST_BYTES) {
			await reader.cancel();
			throw new RecordingError(TOO_LARGE);
		}
		pieces.push(value);
	}
	return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/** The recording that a page carries in itself, in base64; null where it carries none. */
export function inlineRecording(page: Document): string | null {
	return page.querySelector('script#recording[type="application/octet-stream"]')?.textContent ?? null;
}

export async function bytesOf(base64: string): Promise<Uint8Array> {
	if (base64.length / 4 > MOST_BYTES / 3) throw new RecordingError(TOO_LARGE);
	const text = base64.replace(/\s+/g, "");
	const breath = new Breath();
	const bytes = new Uint8Array(Math.floor(text.length / 4) * 3);
	let length = 0;
	for (let at = 0; at < text.length; at += SLICE) {
		let piece: string;
		try {
			piece = atob(text.slice(at, at + SLICE));
		} catch {
			throw new RecordingError("It is no base64 text.");
		}
		for (let i = 0; i < piece.length; i++) bytes[length + i] = piece.charCodeAt(i);
		length += piece.length;
		await breath.take();
	}
	return bytes.subarray(0, length);
}
