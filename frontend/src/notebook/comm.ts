// The server by way of a notebook's kernel: the frames that a socket would carry come and go as buffers of the widget's
// messages. The kernel holds the line to the server and says hello there, so that no token comes into the browser, and a
// browser that reaches the notebook need not reach the server. `backend/steersight/notebook/relay.py` is the other end.
//
// A message of the kernel reaches every page that shows the notebook. Each line has a name, and a page takes what bears
// the name of its own.
import type { OpenTransport, TransportHandlers } from "../connection/transport";
import { decodeFrame, encodeFrame, WireError } from "../protocol/codec";
import type { ClientFrame } from "../protocol/types.gen";

/** What anywidget hands to a widget, as far as it is used here. */
export interface WidgetModel {
	get(name: string): unknown;
	send(content: unknown, callbacks?: unknown, buffers?: ArrayBufferView[]): void;
	on(event: string, callback: (...said: never[]) => void): void;
	off(event: string, callback: (...said: never[]) => void): void;
}

/** What the kernel says, beside the frames. */
type Said =
	| { kind: "opened"; line: string }
	| { kind: "frames"; line: string }
	| { kind: "closed"; line: string; code: number; reason: string };

const MESSAGE = "msg:custom";
/** The widget has lost its kernel, or has one. */
const KERNEL = "comm_live_update";
/**
 * While a cell is run, a kernel hears what comes by way of a subshell, which JupyterLab opens after the first message: that
 * one waits for the cell. A line that is asked for twice is opened once.
 */
export const ASK_AGAIN_MS = 1_000;
export const NO_KERNEL = "The kernel that this map came from has ended. What had arrived stays.";

/** Another name for each line, in every page. */
function named(): string {
	// Not crypto.randomUUID: a notebook may be served without TLS, where browsers do not have it.
	return Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(36)).join("-");
}

export function commTransport(model: WidgetModel, name: () => string = named): OpenTransport {
	return (handlers) => {
		const line = new Line(model, name(), handlers);
		return { send: (frame) => line.send(frame), close: () => line.close() };
	};
}

class Line {
	#state: "asked" | "open" | "closed" = "asked";
	readonly #asking: ReturnType<typeof setInterval>;

	constructor(
		private readonly model: WidgetModel,
		private readonly line: string,
		private readonly handlers: TransportHandlers,
	) {
		model.on(MESSAGE, this.#hear);
		model.on(KERNEL, this.#lost);
		const ask = () => model.send({ kind: "open", line });
		ask();
		this.#asking = setInterval(ask, ASK_AGAIN_MS);
	}

	send(frame: ClientFrame): boolean {
		if (this.#state !== "open") return false;
		// The kernel has said it, with a token where the server wants one.
		if (frame.type === "hello") return true;
		// How long a message takes says how busy the kernel is and nothing of the server; and a kernel that computes for
		// a minute has not gone.
		if (frame.type === "ping") this.handlers.onFrame({ type: "pong", t: frame.t });
		// A copy: JupyterLab 4.6 sends the whole buffer that a view is a part of.
		else this.model.send({ kind: "frame", line: this.line }, undefined, [encodeFrame(frame).slice()]);
		return true;
	}

	close(): void {
		if (this.#state === "closed") return;
		this.#end();
		this.model.send({ kind: "close", line: this.line });
	}

	#end(): void {
		this.#state = "closed";
		clearInterval(this.#asking);
		this.model.off(MESSAGE, this.#hear);
		this.model.off(KERNEL, this.#lost);
	}

	readonly #hear = (said: Said, buffers: readonly (DataView | ArrayBuffer)[] = []) => {
		if (said.line !== this.line) return;
		switch (said.kind) {
			case "opened":
				this.#state = "open";
				clearInterval(this.#asking);
				this.handlers.onOpen();
				break;
			case "frames":
				for (const buffer of buffers) this.#take(bytesIn(buffer));
				break;
			case "closed":
				this.#end();
				this.handlers.onClose(said.code, said.reason);
				break;
		}
	};

	#take(bytes: Uint8Array): void {
		// What a frame leads to may close the line, in the middle of a message.
		if (this.#state !== "open") return;
		try {
			const frame = decodeFrame(bytes);
			if (frame !== null) this.handlers.onFrame(frame);
		} catch (error) {
			if (!(error instanceof WireError)) throw error;
			this.handlers.onBadFrame(error.message);
		}
	}

	readonly #lost = () => {
		if (this.#state !== "open") return;
		this.#end();
		this.handlers.onClose(1006, NO_KERNEL);
	};
}

/** The bytes of a buffer that may be part of a larger one. */
export function bytesIn(buffer: DataView | ArrayBuffer): Uint8Array {
	if (buffer instanceof ArrayBuffer) return new Uint8Array(buffer);
	return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}
