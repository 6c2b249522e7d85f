// One lasting conversation with the server over transports that come and go. It says hello, waits for
// welcome, measures latency, comes back after a loss, and gives up with a typed reason when coming back
// cannot help. At most one transport is open; frames of a closed one never reach the listener.
import { CLOSE_CODES, type ClientFrame, PROTOCOL_VERSION, type ServerFrame } from "../protocol/types.gen";
import { retryWait } from "./backoff";
import { browserClock, type Clock } from "./clock";
import { type ConnectionState, followedBy, type GiveUpReason } from "./phase";
import type { OpenTransport, Transport } from "./transport";

export interface ConnectionListener {
	onState(state: ConnectionState): void;
	/** Every frame but pong. `welcome` comes first after each (re)connection. */
	onFrame(frame: ServerFrame): void;
	onLatency(ms: number): void;
	onBadFrame(message: string): void;
}

export const PING_EVERY_MS = 4_000;
/** Longer than any pause of a healthy server: nothing heard for this long means the path is dead. */
export const SILENCE_MS = 45_000;
/** Longer than any answer takes to a ping, once the page is awake. */
export const PROBE_MS = 4_000;
export const MOST_ATTEMPTS = 40;

const FATAL: Record<number, GiveUpReason> = {
	[CLOSE_CODES.UNAUTHORIZED.code]: "unauthorized",
	[CLOSE_CODES.BAD_HANDSHAKE.code]: "protocol-mismatch",
	[CLOSE_CODES.WRONG_SUBPROTOCOL.code]: "protocol-mismatch",
	[CLOSE_CODES.TEXT_FRAME.code]: "text-frames",
};

const SENTENCES = new Map<number, string>(
	Object.values(CLOSE_CODES).map(({ code, reason }) => [code, reason]),
);

export class Connection {
	#state: ConnectionState = { kind: "connecting" };
	#transport: Transport | null = null;
	/** Number of the present transport's life; callbacks of earlier lives are dropped. */
	#life = 0;
	#attempt = 0;
	#timer: unknown;
	#pinger: unknown;
	/** Since when an answer is owed; null when the server has said something since it was last asked. */
	#owedSince: number | null = null;
	#tickDue = 0;
	#probe: unknown;

	constructor(
		private readonly open: OpenTransport,
		private readonly listener: ConnectionListener,
		private said: string | null = null,
		private readonly clock: Clock = browserClock,
	) {}

	get state(): ConnectionState {
		return this.#state;
	}

	connect(): void {
		this.#dropTransport();
		const life = this.#life;
		const mine = (action: () => void) => {
			if (life === this.#life) action();
		};
		this.#become({ kind: "connecting" });
		this.#owedSince = this.clock.now();
		// A socket that neither opens nor fails is bounded by the same silence rule as a live one.
		this.#tickLater();
		this.#transport = this.open({
			onOpen: () => mine(() => this.#transport?.send({ type: "hello", token: this.token })),
			onFrame: (frame) => mine(() => this.#take(frame)),
			onBadFrame: (message) => mine(() => this.listener.onBadFrame(message)),
			onClose: (code, reason) => mine(() => this.#lost(code, reason)),
		});
	}

	/** Hand over one frame. False when the connection is not live; the caller decides what that means. */
	send(frame: ClientFrame): boolean {
		return this.#state.kind === "live" && this.#transport?.send(frame) === true;
	}

	/** What `hello` says to a server that asks for a token. */
	get token(): string | null {
		return this.said;
	}

	/** Say this token from now on, at once. */
	sayToken(token: string | null): void {
		this.said = token;
		this.#attempt = 0;
		this.connect();
	}

	/**
	 * The network came back, or the person did. A lost line is tried at once; a live one may have died without a
	 * word while the page was frozen, so it has to answer a ping.
	 */
	wake(): void {
		const { kind } = this.#state;
		if (kind === "live") this.#mustAnswer();
		else if (kind === "reconnecting") this.retryNow();
		else if (kind === "given-up" && this.#state.reason === "unreachable") this.retryNow();
		else if (kind === "connecting" && this.clock.now() - (this.#owedSince ?? 0) > PROBE_MS) this.connect();
	}

	/** Connect at once: the person asked. */
	retryNow(): void {
		if (this.#state.kind === "live" || this.#state.kind === "connecting") return;
		this.#attempt = 0;
		this.connect();
	}

	close(): void {
		this.#dropTransport();
	}

	#take(frame: ServerFrame): void {
		this.#owedSince = null;
		if (frame.type === "pong") {
			this.listener.onLatency(this.clock.now() - frame.t);
			return;
		}
		if (frame.type === "welcome") {
			if (frame.protocol !== PROTOCOL_VERSION) {
				this.#giveUp(
					"protocol-mismatch",
					`The server speaks protocol ${frame.protocol} and this page ${PROTOCOL_VERSION}. Reload the page.`,
				);
				return;
			}
			this.#attempt = 0;
			this.#become({ kind: "live" });
			this.#ping();
		}
		this.listener.onFrame(frame);
	}

	#lost(code: number, reason: string): void {
		this.#dropTransport();
		const sentence = reason || SENTENCES.get(code) || "The server cannot be reached.";
		const fatal = FATAL[code];
		if (fatal !== undefined) {
			this.#giveUp(fatal, sentence);
			return;
		}
		this.#attempt += 1;
		if (this.#attempt > MOST_ATTEMPTS) {
			this.#giveUp("unreachable", `The server did not answer ${MOST_ATTEMPTS} times in a row.`);
			return;
		}
		const wait = retryWait(this.#attempt, this.clock.random());
		this.#become({
			kind: "reconnecting",
			attempt: this.#attempt,
			retryAt: this.clock.now() + wait,
			why: sentence,
		});
		this.#timer = this.clock.setTimeout(() => this.connect(), wait);
	}

	#giveUp(reason: GiveUpReason, message: string): void {
		this.#dropTransport();
		this.#become({ kind: "given-up", reason, message });
	}

	#tick(): void {
		const now = this.clock.now();
		// The page itself slept: what the server said meanwhile may still wait to be heard.
		const late = now - this.#tickDue > PROBE_MS;
		const silent = this.#owedSince !== null && now - this.#owedSince > SILENCE_MS;
		if (silent && late && this.#state.kind === "live") {
			this.#mustAnswer();
			this.#tickLater();
		} else if (silent) {
			this.#lost(1006, "Nothing was heard from the server for too long.");
		} else if (this.#state.kind === "live") {
			this.#ping();
		} else {
			this.#tickLater();
		}
	}

	#tickLater(): void {
		this.clock.clearTimeout(this.#pinger);
		this.#tickDue = this.clock.now() + PING_EVERY_MS;
		this.#pinger = this.clock.setTimeout(() => this.#tick(), PING_EVERY_MS);
	}

	#ping(): void {
		this.#owedSince ??= this.clock.now();
		this.#transport?.send({ type: "ping", t: this.clock.now() });
		this.#tickLater();
	}

	#mustAnswer(): void {
		const asked = this.clock.now();
		this.#owedSince = asked;
		this.#transport?.send({ type: "ping", t: asked });
		this.clock.clearTimeout(this.#probe);
		this.#probe = this.clock.setTimeout(() => {
			if (this.#owedSince === asked) this.connect();
		}, PROBE_MS);
	}

	#dropTransport(): void {
		this.#life += 1;
		this.clock.clearTimeout(this.#timer);
		this.clock.clearTimeout(this.#pinger);
		this.clock.clearTimeout(this.#probe);
		this.#transport?.close();
		this.#transport = null;
	}

	#become(state: ConnectionState): void {
		this.#state = followedBy(this.#state, state);
		this.listener.onState(state);
	}
}
