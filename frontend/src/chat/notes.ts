// The quiet sentences of a turn: what it waits for, that its line is down, how it ended.
import type { Run } from "../store/run";

/** What a reply without a word waits for; null when it does not. */
export function waitingFor(run: Run): string | null {
	if (!run.delivery.live || run.delivery.away) return null;
	if (run.delivery.queued !== null) {
		const before = run.delivery.queued - 1;
		return before === 0 ? "Waiting for a place: you are next" : `Waiting for a place: ${before} before you`;
	}
	return run.tokens.ids.length === 0 && run.delivery.remembered === null
		? "Waiting for the first token"
		: null;
}

/** What a person should know of a reply whose line is down; or null. */
export function noteOf(run: Run): string | null {
	if (!run.delivery.live || !run.delivery.away) return null;
	if (run.delivery.stopAsked) return "The connection is lost. The reply will be stopped when it is back.";
	return "The connection is lost. The reply goes on being written, and comes when the connection is back.";
}

/** What wrote a reply, where the served model has adapters; "" where that is not known, or goes without saying. */
export function writerOf(run: Run, adapters: readonly unknown[]): string {
	if (run.adapter === null) return adapters.length > 0 ? "Base model" : "";
	return run.adapter === undefined ? "" : `Adapter ${run.adapter}`;
}

/** How a reply ended, in a few words. */
export function endingOf(run: Run): string {
	const reason = run.finished?.reason;
	if (reason === "length") return "Ended at the token limit";
	if (reason === "cancelled") return "Stopped";
	if (run.delivery.phase === "lost") return "Interrupted";
	if (run.delivery.phase === "failed") return "Failed";
	return run.finished?.stop ? `Ended at ${JSON.stringify(run.finished.stop)}` : "";
}
