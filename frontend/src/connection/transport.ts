// What a connection needs from whatever carries frames. The live transport is a WebSocket; a recording can
// be played through the same interface, because it speaks frames and not bytes.
import { decodeFrame, encodeFrame, WireError } from "../protocol/codec";
import { type ClientFrame, type ServerFrame, SUBPROTOCOL } from "../protocol/types.gen";

export interface TransportHandlers {
	onOpen(): void;
	onFrame(frame: ServerFrame): void;
	/** Something arrived that is no frame; the transport stays open. */
	onBadFrame(message: string): void;
	/** Called once, also when opening failed. Nothing else is called afterwards. */
	onClose(code: number, reason: string): void;
}

export interface Transport {
	/** False when the frame could not be handed over. */
	send(frame: ClientFrame): boolean;
	close(): void;
}

export type OpenTransport = (handlers: TransportHandlers) => Transport;

export function webSocketTransport(url: string): OpenTransport {
	return (handlers) => {
		const socket = new WebSocket(url, SUBPROTOCOL);
		socket.binaryType = "arraybuffer";
		socket.onopen = () => handlers.onOpen();
		socket.onclose = (event) => handlers.onClose(event.code, event.reason);
		socket.onmessage = (event: MessageEvent<ArrayBuffer | string>) => {
			if (typeof event.data === "string") {
				handlers.onBadFrame("The server sent text where only binary frames are allowed.");
				return;
			}
			let frame: ServerFrame | null;
			try {
				frame = decodeFrame(new Uint8Array(event.data));
			} catch (error) {
				if (!(error instanceof WireError)) throw error;
				handlers.onBadFrame(error.message);
				return;
			}
			if (frame !== null) handlers.onFrame(frame);
		};
		return {
			send(frame) {
				if (socket.readyState !== WebSocket.OPEN) return false;
				socket.send(encodeFrame(frame));
				return true;
			},
			close: () => socket.close(1000),
		};
	};
}

/** The socket's address beside the page's own, behind the same path prefix. */
export function socketUrl(page: string): string {
	const url = new URL("ws", page);
	url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
	return url.href;
}
