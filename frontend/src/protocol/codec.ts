// Frames to bytes and back: the one place of the page that knows msgpack. Whatever bytes arrive, decoding
// gives a frame of a known type, nothing for a type that only a newer server knows, or throws a WireError whose
// message is a sentence.
import { decode, encode } from "@msgpack/msgpack";
import { type ClientFrame, SERVER_TYPES, type ServerFrame } from "./types.gen";

export class WireError extends Error {
	override name = "WireError";
}

export function encodeFrame(frame: ClientFrame): Uint8Array<ArrayBuffer> {
	return encode(frame);
}

/** The server validates what it sends, so only the shape that routing relies on is checked here. */
export function decodeFrame(bytes: Uint8Array): ServerFrame | null {
	const value = decodeValue(bytes);
	if (typeof value !== "object" || value === null || !("type" in value)) {
		throw new WireError("The server sent a frame that is not a map with a type.");
	}
	if (typeof value.type !== "string") {
		throw new WireError("The server sent a frame whose type is not a text.");
	}
	if (!SERVER_TYPES.includes(value.type)) return null;
	const frame = value as ServerFrame;
	if (frame.type === "rows") checkRows(frame);
	else if (frame.type === "lens") checkLens(frame);
	else if (frame.type === "alternatives") checkAlternatives(frame);
	return frame;
}

/** Any msgpack value; exported for the golden-byte test, which also reads client frames. */
export function decodeValue(bytes: Uint8Array): unknown {
	try {
		return decode(bytes);
	} catch (cause) {
		throw new WireError("The server sent bytes that are not one msgpack value.", { cause });
	}
}

function isBytes(value: unknown, length: number): boolean {
	return value instanceof Uint8Array && value.length === length;
}

function checkRows(frame: Extract<ServerFrame, { type: "rows" }>): void {
	const wanted = frame.count * frame.metrics.length * frame.layers * 2;
	if (!isBytes(frame.data, wanted)) {
		throw new WireError(`The server sent rows without the ${wanted} bytes that their shape asks for.`);
	}
	if (frame.revs.length !== frame.count) {
		throw new WireError("The server sent rows whose revisions do not match their count.");
	}
	if (frame.entropy !== null && !isBytes(frame.entropy, frame.count * 2)) {
		throw new WireError("The server sent rows whose entropies do not match their count.");
	}
}

function checkLens(frame: Extract<ServerFrame, { type: "lens" }>): void {
	const guesses = frame.count * frame.layers.length * frame.top;
	if (!isBytes(frame.ids, guesses * 4) || !isBytes(frame.probabilities, guesses * 2)) {
		throw new WireError(
			`The server sent a logit lens without the ${guesses} guesses that its shape asks for.`,
		);
	}
	if (frame.new_ids.length !== frame.new_texts.length) {
		throw new WireError("The server sent a logit lens whose new tokens do not match their texts.");
	}
}

function checkAlternatives(frame: Extract<ServerFrame, { type: "alternatives" }>): void {
	const named = frame.count * frame.top;
	if (!isBytes(frame.ids, named * 4) || !isBytes(frame.logprobs, named * 4)) {
		throw new WireError(
			`The server sent alternatives without the ${named} tokens that their shape asks for.`,
		);
	}
	if (frame.new_ids.length !== frame.new_texts.length) {
		throw new WireError("The server sent alternatives whose new tokens do not match their texts.");
	}
}
