import { describe, expect, test } from "vitest";
import { CLOSE_CODES } from "../protocol/types.gen";
import { chance, TestClock, welcomeFrame } from "../testing";
import { Connection, PROBE_MS, SILENCE_MS } from "./connection";
import { type ConnectionPhase, type ConnectionState, followedBy, NEXT_CONNECTION_PHASES } from "./phase";
import type { TransportHandlers } from "./transport";

const STATES: Record<ConnectionPhase, ConnectionState> = {
	connecting: { kind: "connecting" },
	live: { kind: "live" },
	reconnecting: { kind: "reconnecting", attempt: 1, retryAt: 0, why: "" },
	"given-up": { kind: "given-up", reason: "unreachable", message: "" },
};
const PHASES = Object.keys(STATES) as ConnectionPhase[];

/** Whether the phase of the column, in the order of PHASES, may follow the phase of the row. */
const TABLE: [ConnectionPhase, string][] = [
	["connecting", "yes yes yes yes"],
	["live", "yes yes yes yes"],
	["reconnecting", "yes no no no"],
	["given-up", "yes no no no"],
];

describe("phases of a connection", () => {
	test.each(TABLE)("after %s", (from, row) => {
		const found = PHASES.map((to) => {
			try {
				return followedBy(STATES[from], STATES[to]) === STATES[to] ? "yes" : "another state";
			} catch (error) {
				expect((error as Error).message).toBe(`A connection that is ${from} cannot become ${to}.`);
				return "no";
			}
		});
		expect(found).toEqual(row.split(" "));
	});

	test("whatever server, network and person do, one transport is open and each move is in the table", () => {
		const seen = new Set<string>();
		for (let seed = 0; seed < 60; seed++) {
			const random = chance(seed);
			const clock = new TestClock();
			const transports: { handlers: TransportHandlers; open: boolean }[] = [];
			const phases: ConnectionPhase[] = ["connecting"];
			const connection = new Connection(
				(handlers) => {
					const transport = { handlers, open: true };
					transports.push(transport);
					return {
						send: () => true,
						close: () => {
							transport.open = false;
						},
					};
				},
				{
					onState: ({ kind }) => phases.push(kind),
					onFrame: () => {},
					onLatency: () => {},
					onBadFrame: () => {},
				},
				null,
				clock,
			);
			connection.connect();
			const any = () => transports[Math.floor(random() * transports.length)]!.handlers;
			const last = () => transports.at(-1)!.handlers;
			const codes = [1006, 1006, 1001, CLOSE_CODES.UNAUTHORIZED.code, CLOSE_CODES.BAD_HANDSHAKE.code];
			const events: (() => void)[] = [
				() => last().onOpen(),
				() => last().onFrame(welcomeFrame()),
				() => any().onFrame(welcomeFrame()),
				() => any().onFrame(welcomeFrame({ protocol: 2 })),
				() => any().onFrame({ type: "pong", t: clock.now() }),
				() => any().onClose(codes[Math.floor(random() * codes.length)]!, ""),
				() => connection.wake(),
				() => connection.retryNow(),
				() => connection.sayToken("x"),
				() => clock.advance(random() * 2 * PROBE_MS),
				() => clock.sleep(random() * 2 * SILENCE_MS),
			];
			for (let i = 0; i < 80; i++) {
				events[Math.floor(random() * events.length)]!();
				const open = transports.filter((transport) => transport.open).length;
				const wanted = ["connecting", "live"].includes(connection.state.kind) ? 1 : 0;
				expect([connection.state.kind, open]).toEqual([connection.state.kind, wanted]);
			}
			for (let i = 1; i < phases.length; i++) seen.add(`${phases[i - 1]} > ${phases[i]}`);
		}
		const legal = PHASES.flatMap((from) => NEXT_CONNECTION_PHASES[from].map((to) => `${from} > ${to}`));
		expect([...seen].sort()).toEqual(legal.sort());
	});
});
