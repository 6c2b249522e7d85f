import { beforeEach, describe, expect, test } from "vitest";
import { CLOSE_CODES, type ClientFrame, type ServerFrame } from "../protocol/types.gen";
import { TestClock, welcomeFrame } from "../testing";
import { FIRST_WAIT_MS, LONGEST_WAIT_MS, retryWait } from "./backoff";
import { Connection, MOST_ATTEMPTS, PROBE_MS, SILENCE_MS } from "./connection";
import type { ConnectionState } from "./phase";
import { socketUrl, type TransportHandlers } from "./transport";

class FakeSocket {
	sent: ClientFrame[] = [];
	closed = false;
	constructor(readonly handlers: TransportHandlers) {}
	send(frame: ClientFrame) {
		this.sent.push(frame);
		return true;
	}
	close() {
		this.closed = true;
	}
}

const welcome = welcomeFrame();

let clock: TestClock;
let sockets: FakeSocket[];
let states: ConnectionState[];
let frames: ServerFrame[];
let latencies: number[];
let connection: Connection;
const last = () => sockets.at(-1)!;

beforeEach(() => {
	clock = new TestClock();
	sockets = [];
	states = [];
	frames = [];
	latencies = [];
	connection = new Connection(
		(handlers) => {
			const socket = new FakeSocket(handlers);
			sockets.push(socket);
			return socket;
		},
		{
			onState: (state) => states.push(state),
			onFrame: (frame) => frames.push(frame),
			onLatency: (ms) => latencies.push(ms),
			onBadFrame: () => {},
		},
		"secret",
		clock,
	);
	connection.connect();
});

function goLive() {
	last().handlers.onOpen();
	last().handlers.onFrame(welcome);
}

describe("connection", () => {
	test("says hello, is live only after welcome, and sends only then", () => {
		last().handlers.onOpen();
		expect(last().sent).toEqual([{ type: "hello", token: "secret" }]);
		expect(connection.send({ type: "stop", run: "r" })).toBe(false);
		last().handlers.onFrame(welcome);
		expect(connection.state.kind).toBe("live");
		expect(connection.send({ type: "stop", run: "r" })).toBe(true);
		expect(frames).toEqual([welcome]);
	});

	test("measures latency from its own clock and keeps pong to itself", () => {
		goLive();
		const ping = last().sent.at(-1)!;
		clock.advance(23);
		last().handlers.onFrame({ type: "pong", t: ping.type === "ping" ? ping.t : -1 });
		expect(latencies).toEqual([23]);
		expect(frames.length).toBe(1);
	});

	test("comes back after a loss, waiting longer each time, and starts afresh once live", () => {
		goLive();
		const waits: number[] = [];
		for (let i = 0; i < 8; i++) {
			last().handlers.onClose(1006, "");
			const state = connection.state;
			if (state.kind !== "reconnecting") throw new Error(state.kind);
			waits.push(state.retryAt - clock.now());
			clock.advance(waits.at(-1)!);
			expect(connection.state.kind).toBe("connecting");
		}
		expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
		expect(sockets.length).toBe(9);
		goLive();
		last().handlers.onClose(1006, "");
		expect(connection.state).toMatchObject({ kind: "reconnecting", attempt: 1 });
	});

	test("an earlier transport's late words are not heard", () => {
		goLive();
		const old = last();
		old.handlers.onClose(1006, "");
		clock.advance(FIRST_WAIT_MS);
		goLive();
		old.handlers.onFrame({ type: "pong", t: 0 });
		old.handlers.onClose(1006, "");
		expect(connection.state.kind).toBe("live");
		expect(latencies).toEqual([]);
	});

	test.each([
		[CLOSE_CODES.UNAUTHORIZED.code, "unauthorized"],
		[CLOSE_CODES.WRONG_SUBPROTOCOL.code, "protocol-mismatch"],
		[CLOSE_CODES.BAD_HANDSHAKE.code, "protocol-mismatch"],
	] as const)("close code %i ends it: %s", (code, reason) => {
		last().handlers.onClose(code, "");
		expect(connection.state).toMatchObject({ kind: "given-up", reason });
		clock.advance(10 * LONGEST_WAIT_MS);
		expect(sockets.length).toBe(1);
	});

	test("another protocol version ends it with a sentence", () => {
		last().handlers.onOpen();
		last().handlers.onFrame({ ...welcome, protocol: 2 });
		expect(connection.state).toMatchObject({ kind: "given-up", reason: "protocol-mismatch" });
		expect(last().closed).toBe(true);
		expect(frames).toEqual([]);
	});

	test("gives up when nothing ever answers, and tries again when asked", () => {
		for (let i = 0; i < MOST_ATTEMPTS; i++) {
			last().handlers.onClose(1006, "");
			clock.advance(LONGEST_WAIT_MS);
		}
		last().handlers.onClose(1006, "");
		expect(connection.state).toMatchObject({ kind: "given-up", reason: "unreachable" });
		connection.retryNow();
		goLive();
		expect(connection.state.kind).toBe("live");
	});

	test("a silent path is dropped; a talking one is not", () => {
		goLive();
		for (let i = 0; i < 20; i++) {
			clock.advance(SILENCE_MS / 2);
			last().handlers.onFrame({ type: "pong", t: clock.now() });
		}
		expect(connection.state.kind).toBe("live");
		clock.advance(SILENCE_MS + 10_000);
		expect(states.some((state) => state.kind === "reconnecting")).toBe(true);
		expect(sockets[0]!.closed).toBe(true);
	});

	describe("when the network or the person comes back", () => {
		test("a lost line is tried at once", () => {
			goLive();
			last().handlers.onClose(1006, "");
			connection.wake();
			expect([connection.state.kind, sockets.length]).toEqual(["connecting", 2]);
			connection.wake();
			expect(sockets.length).toBe(2);
			clock.advance(PROBE_MS + 1);
			connection.wake();
			expect(sockets.length).toBe(3);
		});

		test("a live line that answers stays", () => {
			goLive();
			clock.advance(1000);
			connection.wake();
			last().handlers.onFrame({ type: "pong", t: clock.now() });
			clock.advance(PROBE_MS * 2);
			expect([connection.state.kind, sockets.length]).toEqual(["live", 1]);
		});

		test("a live line that is dead without a word is replaced", () => {
			goLive();
			last().handlers.onFrame({ type: "pong", t: 0 });
			connection.wake();
			expect(last().sent.at(-1)).toMatchObject({ type: "ping" });
			clock.advance(PROBE_MS);
			expect([sockets.length, sockets[0]!.closed, connection.state.kind]).toEqual([2, true, "connecting"]);
		});

		test("a page that gave up for lack of an answer tries again, one without a right token does not", () => {
			for (let i = 0; i <= MOST_ATTEMPTS; i++) {
				last().handlers.onClose(1006, "");
				clock.advance(LONGEST_WAIT_MS);
			}
			const tried = sockets.length;
			connection.wake();
			expect(sockets.length).toBe(tried + 1);
			last().handlers.onClose(CLOSE_CODES.UNAUTHORIZED.code, "");
			connection.wake();
			expect(sockets.length).toBe(tried + 1);
		});
	});

	test("a hidden page whose timers are slow is not cut off from a server that answers", () => {
		goLive();
		for (let minute = 0; minute < 5; minute++) {
			last().handlers.onFrame({ type: "pong", t: clock.now() });
			// Every timer that came due meanwhile fires only now.
			clock.sleep(60_000);
		}
		expect([connection.state.kind, sockets.length]).toEqual(["live", 1]);
	});

	test("a page that slept in the middle of a ping asks once more before it lets go", () => {
		goLive();
		clock.sleep(600_000);
		expect(connection.state.kind).toBe("live");
		last().handlers.onFrame({ type: "pong", t: 0 });
		clock.advance(PROBE_MS);
		expect(sockets.length).toBe(1);
		clock.sleep(600_000);
		clock.advance(PROBE_MS);
		expect(sockets.length).toBe(2);
	});

	test("another token is said at once", () => {
		expect(connection.token).toBe("secret");
		last().handlers.onClose(CLOSE_CODES.UNAUTHORIZED.code, "");
		connection.sayToken("better");
		last().handlers.onOpen();
		expect(last().sent).toEqual([{ type: "hello", token: "better" }]);
	});

	test("closing stops every timer", () => {
		goLive();
		connection.close();
		clock.advance(10 * SILENCE_MS);
		expect(sockets.length).toBe(1);
	});
});

describe("retryWait", () => {
	test("stays between half the ceiling and the ceiling for any chance", () => {
		for (let attempt = 1; attempt < 60; attempt++) {
			const ceiling = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempt - 1));
			for (const chance of [0, 0.25, 0.5, 0.999]) {
				const wait = retryWait(attempt, chance);
				expect(wait).toBeLessThanOrEqual(ceiling);
				expect(wait).toBeGreaterThanOrEqual(ceiling / 2);
			}
		}
	});
});

test("the socket stands beside the page, wherever that is", () => {
	expect(socketUrl("http://a:8000/")).toBe("ws://a:8000/ws");
	expect(socketUrl("https://a/?q=1#s=joy,0.1")).toBe("wss://a/ws");
	expect(socketUrl("https://a/lab/steersight/")).toBe("wss://a/lab/steersight/ws");
	expect(socketUrl("https://a/lab/steersight/index.html")).toBe("wss://a/lab/steersight/ws");
});
