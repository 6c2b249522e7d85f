// The line by way of a kernel that the test plays: what reaches the session, and what is said of its run.
import { encode } from "@msgpack/msgpack";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { decodeValue } from "../protocol/codec";
import type { ClientFrame, ServerFrame } from "../protocol/types.gen";
import { Session } from "../session/session";
import {
	appliedFrame,
	finishedFrame,
	manualBatch,
	resumedFrame,
	rowsFrame,
	startedFrame,
	tokensFrame,
} from "../testing";
import { welcome } from "../testing/lab";
import { STILL } from "../testing/server";
import { ASK_AGAIN_MS, bytesIn, commTransport, NO_KERNEL, type WidgetModel } from "./comm";

type Listener = (...said: never[]) => void;
interface Heard {
	kind: string;
	line: string;
}

/** A widget's model, and the kernel at its other end. */
class Kernel implements WidgetModel {
	readonly heard: Heard[] = [];
	readonly frames: ClientFrame[] = [];
	#listeners = new Map<string, Set<Listener>>();

	get(): unknown {
		return undefined;
	}

	send(content: unknown, _callbacks?: unknown, buffers: ArrayBufferView[] = []): void {
		const said = content as Heard;
		if (said.kind !== "frame") this.heard.push(said);
		for (const { buffer, byteOffset, byteLength } of buffers) {
			expect(byteLength, "JupyterLab sends all of a buffer").toBe(buffer.byteLength);
			this.frames.push(
				decodeValue(new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength)) as ClientFrame,
			);
		}
	}

	on(event: string, callback: Listener): void {
		this.#listeners.set(event, (this.#listeners.get(event) ?? new Set()).add(callback));
	}

	off(event: string, callback: Listener): void {
		this.#listeners.get(event)?.delete(callback);
	}

	tell(event: string, ...said: unknown[]): void {
		for (const listener of [...(this.#listeners.get(event) ?? [])]) listener(...(said as never[]));
	}

	say(kind: string, line: string, more: object = {}, buffers: DataView[] = []): void {
		this.tell("msg:custom", { kind, line, ...more }, buffers);
	}

	/** Frames in one message, as a server sends them. Their buffers are parts of larger ones, as Jupyter's are. */
	bring(line: string, ...frames: ServerFrame[]): void {
		const buffers = frames.map((frame) => {
			const bytes = encode(frame);
			const larger = new Uint8Array(bytes.length + 5);
			larger.set(bytes, 3);
			return new DataView(larger.buffer, 3, bytes.length);
		});
		this.say("frames", line, {}, buffers);
	}

	get listening(): number {
		return [...this.#listeners.values()].reduce((sum, { size }) => sum + size, 0);
	}
}

function shown(): { kernel: Kernel; session: Session } {
	const kernel = new Kernel();
	let lines = 0;
	const open = commTransport(kernel, () => `line${++lines}`);
	const session = new Session(open, null, manualBatch(), STILL);
	session.watch("r1");
	session.connection.connect();
	return { kernel, session };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("a run comes by way of the kernel, and is steered by it", () => {
	const { kernel, session } = shown();
	expect(kernel.heard).toEqual([{ kind: "open", line: "line1" }]);
	kernel.say("opened", "line1");
	expect(kernel.frames, "the kernel says hello, with the token").toEqual([]);
	kernel.bring("line1", welcome);
	expect(kernel.frames).toEqual([{ type: "resume", run: "r1", epoch: welcome.epoch, after: 0 }]);
	kernel.bring(
		"line1",
		startedFrame(["p"]),
		resumedFrame({ rev: 0 }),
		rowsFrame(0, 1),
		tokensFrame(1, ["A"]),
	);
	const run = session.shown!;
	expect([run.replyText(), run.rows.received, run.delivery.phase]).toEqual(["A", 1, "streaming"]);
	session.steering.set("joy", 0.1);
	expect(kernel.frames.at(-1)).toMatchObject({ type: "steer", run: "r1", rev: 1, strengths: { joy: 0.1 } });
	kernel.bring("line1", appliedFrame(1, 1), finishedFrame());
	expect([session.steering.get("joy"), run.delivery.live]).toEqual([0.1, false]);
});

test("what is meant for another page is left alone", () => {
	const { kernel, session } = shown();
	kernel.say("opened", "elsewhere");
	kernel.say("closed", "elsewhere", { code: 4401, reason: "No." });
	expect(session.connection.state.kind).toBe("connecting");
	kernel.say("opened", "line1");
	kernel.bring("elsewhere", welcome);
	expect(session.connection.state.kind).toBe("connecting");
	kernel.bring("line1", welcome);
	expect(session.connection.state.kind).toBe("live");
});

test("a kernel that is busy is asked again until it answers", () => {
	const { kernel } = shown();
	vi.advanceTimersByTime(2 * ASK_AGAIN_MS);
	expect(kernel.heard.map(({ kind, line }) => [kind, line])).toEqual(Array(3).fill(["open", "line1"]));
	kernel.say("opened", "line1");
	vi.advanceTimersByTime(5 * ASK_AGAIN_MS);
	expect(kernel.heard).toHaveLength(3);
});

test("why a line ended is said", () => {
	const { kernel, session } = shown();
	kernel.say("opened", "line1");
	kernel.bring("line1", welcome);
	kernel.say("closed", "line1", { code: 1006, reason: "No Steersight server answers." });
	expect(session.connection.state).toMatchObject({
		kind: "reconnecting",
		why: "No Steersight server answers.",
	});
	session.connection.retryNow();
	kernel.say("opened", "line2");
	kernel.bring("line2", welcome);
	expect(session.connection.state.kind).toBe("live");
	kernel.tell("comm_live_update");
	expect(session.connection.state).toMatchObject({ kind: "reconnecting", why: NO_KERNEL });
});

test("a line that is closed says so and hears nothing more", () => {
	const { kernel, session } = shown();
	session.connection.close();
	expect(kernel.heard.at(-1)).toEqual({ kind: "close", line: "line1" });
	vi.advanceTimersByTime(5 * ASK_AGAIN_MS);
	expect([kernel.heard.length, kernel.listening]).toEqual([2, 0]);
});

test("bytes that are no frame are told, and the line stays", () => {
	const { kernel, session } = shown();
	kernel.say("opened", "line1");
	kernel.bring("line1", welcome);
	kernel.say("frames", "line1", {}, [new DataView(new Uint8Array([0xc1]).buffer)]);
	expect(session.notice?.message).toContain("not one msgpack value");
	expect(session.connection.state.kind).toBe("live");
	expect(bytesIn(new Uint8Array([1, 2]).buffer)).toEqual(new Uint8Array([1, 2]));
});
