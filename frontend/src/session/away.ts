// What a person is told of a server that takes nothing now, or that is not the one it was.
import type { ConnectionState } from "../connection/phase";
import type { EngineStatus, ModelInfo } from "../protocol/types.gen";

/** How a server begins to say it, and goes on with how far it is. */
const CHANGING = /^The model is being changed to \S+\./;

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
			if (!wasReady) return "The engine is still loading.";
			return `${CHANGING.exec(engine.stage)?.[0] ?? "The engine is being started again."} You can write your question already.`;
		case "draining":
			return "The server is about to end and takes no new questions.";
		default:
			return "The engine is not running.";
	}
}

/** Another life of the server, or another server, answers: its runs are not ours, our conversation is. */
export function movedSentence(before: string, now: string, talked: boolean, live: boolean): string {
	const what = now === before ? "The server was restarted." : `You are now on another server (${now}).`;
	const kept = talked ? " Your conversation was kept." : "";
	const ended = live ? " The reply that was being written ended there." : "";
	return `${what}${kept}${ended}`;
}

/** The same server serves another model than `model`, or could not: to be said once its engine is ready again. */
export function changedSentence(
	model: ModelInfo | null,
	engine: EngineStatus | null,
	now: { model: ModelInfo | null; engine: EngineStatus | null },
	talked: boolean,
): string | null {
	if (now.engine?.state === "ready" && engine?.state === "ready" && now.engine.stage !== engine.stage) {
		// Why the model that was wanted is not served.
		return now.engine.stage.includes(" is served again.") ? now.engine.stage : null;
	}
	if (model === null || now.model === null || model.id === now.model.id) return null;
	const kept = talked ? " Your conversation was kept, and the next reply is written by it." : "";
	return `The model of this server is changed to ${now.model.id}.${kept}`;
}
