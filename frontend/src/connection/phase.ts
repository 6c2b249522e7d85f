// The phases of a connection and the table of what may follow what. A move that the table lacks is a mistake in
// this page, never something that a server or a network can cause.

export type GiveUpReason = "unauthorized" | "protocol-mismatch" | "text-frames" | "unreachable";

export type ConnectionState =
	/** A transport is being opened, or is open and the server has not yet said `welcome`. */
	| { kind: "connecting" }
	/** The server has said `welcome`: frames can be sent. */
	| { kind: "live" }
	/** No transport; the next is opened at `retryAt`, on the connection's clock. */
	| { kind: "reconnecting"; attempt: number; retryAt: number; why: string }
	/** No transport, and none will be opened before a person or the network asks for it. */
	| { kind: "given-up"; reason: GiveUpReason; message: string };

export type ConnectionPhase = ConnectionState["kind"];

/** Per phase those that may follow it. A phase that follows itself begins anew. */
export const NEXT_CONNECTION_PHASES: Readonly<Record<ConnectionPhase, readonly ConnectionPhase[]>> = {
	// Again: another token was typed, or a person came back to a transport that neither opens nor fails.
	connecting: ["connecting", "live", "reconnecting", "given-up"],
	// Connecting: the line did not answer after a sleep, or another token was typed. Live: a second `welcome`.
	live: ["live", "connecting", "reconnecting", "given-up"],
	reconnecting: ["connecting"],
	"given-up": ["connecting"],
};

/** The state to take on. Throws when it may not follow the present one. */
export function followedBy(now: ConnectionState, next: ConnectionState): ConnectionState {
	if (NEXT_CONNECTION_PHASES[now.kind].includes(next.kind)) return next;
	throw new Error(`A connection that is ${now.kind} cannot become ${next.kind}.`);
}
