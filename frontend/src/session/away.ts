import type { ConnectionState } from "../connection/connection";
import type { EngineStatus } from "../protocol/types.gen";

/**
 * Why the server takes nothing now, as a sentence, or null when it does. `wasReady`: its engine ran before, in this
 * life of the server.
 */
export function awaySentence(
	connection: ConnectionState,
	engine: EngineStatus | null,
	wasReady: boolean,
): string | null {
	if (connection.kind !== "live") return "There is no connection to the server now.";
	switch (engine?.state) {
		case "ready":
			return null;
		case "loading":
			return wasReady
				? "The engine is being started again. You can write your question already."
				: "The engine is still loading.";
		case "draining":
			return "The server is about to end and takes no new questions.";
		default:
			return "The engine is not running.";
	}
}
