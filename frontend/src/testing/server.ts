// A session without a page, and the server at the other end of its line, played by the test. Used by tests only.
import { expect } from "vitest";
import type { Clock } from "../connection/clock";
import type { TransportHandlers } from "../connection/transport";
import type { ClientFrame, ServerFrame, Start, Stop } from "../protocol/types.gen";
import { Session } from "../session/session";
import { defaultSettings } from "../session/settings";
import type { Run } from "../store/run";
import type { ShelvingOptions } from "../store/shelving";
import type { FrameBatch } from "../store/signal";
import { errorFrame, finishedFrame, rowsFrame, startedFrame, tokensFrame } from "./frames";
import { manualBatch } from "./tools";

/** Time stands still and no timer fires. */
export const STILL: Clock = { now: () => 0, random: () => 0, setTimeout: () => 0, clearTimeout: () => {} };

export class TestServer {
	/** All that the session sent, oldest first. */
	readonly sent: ClientFrame[] = [];
	readonly session: Session;
	/** Whether the line takes what is sent. */
	takes = true;
	/** The session's end of the newest line. */
	line!: TransportHandlers;

	constructor(
		batch: FrameBatch = manualBatch(),
		clock: Clock = STILL,
		place: Pick<ShelvingOptions, "disk" | "budget"> = { disk: null },
	) {
		this.session = new Session(
			(handlers) => {
				this.line = handlers;
				return { send: (frame) => this.takes && this.sent.push(frame) > 0, close: () => {} };
			},
			null,
			batch,
			clock,
			null,
			place,
		);
	}

	/** The session connects, and these are said to it. */
	open(...frames: ServerFrame[]): void {
		this.session.connection.connect();
		this.line.onOpen();
		this.say(...frames);
	}

	say(...frames: ServerFrame[]): void {
		for (const frame of frames) this.line.onFrame(frame);
	}

	breakOff(): void {
		this.line.onClose(1006, "");
	}

	/** The next try reaches a server that says these. */
	comeBack(...frames: ServerFrame[]): void {
		this.session.connection.retryNow();
		this.line.onOpen();
		this.say(...frames);
	}

	/** What was sent of one type, oldest first. */
	all<T extends ClientFrame["type"]>(type: T): Extract<ClientFrame, { type: T }>[] {
		return this.sent.filter((frame): frame is Extract<ClientFrame, { type: T }> => frame.type === type);
	}

	get starts(): Start[] {
		return this.all("start");
	}

	get stops(): Stop[] {
		return this.all("stop");
	}

	/** The newest start is admitted as `run` after a prompt of one token, and its reply is written up to here. */
	admit(run: string, reply: readonly string[] = ["A"]): Run {
		this.say(startedFrame(["p"], this.starts.at(-1)!.id, run));
		this.say({ ...rowsFrame(0, 1), run }, tokensFrame(1, reply, undefined, run));
		return this.session.turns.at(-1)!.run;
	}

	finish(run: string, reason: "stop" | "cancelled" | "length" = "stop"): void {
		this.say(finishedFrame({ run, reason }));
	}

	/** The start of this id is refused. */
	refuse(id: string): void {
		this.say(errorFrame({ code: "busy", message: "All places are taken.", id }));
	}

	/** A question is asked, and its whole reply is written as `run`. */
	turn(question: string, reply: readonly string[], run: string): void {
		expect(this.session.ask(question, defaultSettings())).toBe(true);
		this.admit(run, reply);
		this.finish(run);
	}
}

/** A session whose line is up, before the server has said anything. */
export function played(): { server: TestServer; session: Session } {
	const server = new TestServer();
	server.open();
	return { server, session: server.session };
}
