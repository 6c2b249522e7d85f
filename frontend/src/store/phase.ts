// The phases of a run as the page knows it, and what moves it from one to the next.
//
//     starting --started--> streaming <--resumed / left--> away
//         |                     |                            |
//         +---------------------+----------------------------+--> done, failed, lost
//
// What is over stays over: a run that was given up as lost does not come back to life when its last frame
// arrives after all, and a finished one cannot be lost.

export type RunPhase =
	/** The start was sent; the server has not admitted it and the run has no name. */
	| "starting"
	/** The server writes it, and its frames come here. */
	| "streaming"
	/** The server writes it as far as is known, but the line is down or `resume` has not been answered. */
	| "away"
	/** It came to an end of its own or was stopped. */
	| "done"
	/** The server said that it failed, or the page found that its frames cannot be right. */
	| "failed"
	/** It was live, and its end cannot be had any more. */
	| "lost";

export type RunEvent = "started" | "left" | "resumed" | "finished" | "failed" | "lost";

export const RUN_PHASES: readonly RunPhase[] = ["starting", "streaming", "away", "done", "failed", "lost"];

/** Where an event takes a run. An event that a phase does not list leaves it as it is. */
export const NEXT_RUN_PHASE: Readonly<Record<RunPhase, Readonly<Partial<Record<RunEvent, RunPhase>>>>> = {
	starting: { started: "streaming", finished: "done", failed: "failed" },
	streaming: { left: "away", finished: "done", failed: "failed", lost: "lost" },
	away: { resumed: "streaming", finished: "done", failed: "failed", lost: "lost" },
	done: {},
	failed: {},
	lost: {},
};

/** Whether the server may still write the run, as far as is known. */
export function isLive(phase: RunPhase): boolean {
	return phase === "starting" || phase === "streaming" || phase === "away";
}
