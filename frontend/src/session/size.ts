// Whether a start fits what the server takes. A frame that is too large would end the connection, and the reason
// with it, so it is said before.
import { encodeFrame } from "../protocol/codec";
import type { Limits, Start } from "../protocol/types.gen";

/** Why a start cannot be sent, as a sentence, or null when it can. */
export function sizeProblem(
	start: Start,
	limits: Pick<Limits, "max_frame_bytes" | "max_messages"> | null,
): string | null {
	if (limits === null) return null;
	const { length } = start.messages;
	if (length > limits.max_messages) {
		return `This conversation has ${length} messages, and the server takes ${limits.max_messages}. Begin a new one.`;
	}
	const bytes = encodeFrame(start).byteLength;
	if (bytes <= limits.max_frame_bytes) return null;
	const [has, takes] = [bytes, limits.max_frame_bytes].map((size) =>
		Math.ceil(size / 1024).toLocaleString("en"),
	);
	return `This conversation has ${has} KiB, and the server takes ${takes} KiB. Shorten it or begin a new one.`;
}
