import { readFileSync } from "node:fs";
import { encode } from "@msgpack/msgpack";
import { describe, expect, test } from "vitest";
import { decodeFrame, decodeValue, encodeFrame, WireError } from "./codec";
import type { ClientFrame } from "./types.gen";

interface Golden {
	name: string;
	direction: "client" | "server";
	hex: string;
	frame: Record<string, unknown>;
}

const golden: Golden[] = JSON.parse(
	readFileSync(new URL("../../../backend/tests/golden/frames.json", import.meta.url), "utf8"),
);

function bytesOf(hex: string): Uint8Array {
	return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** JSON has no bytes, so the file writes them as {"$hex": "..."}. */
function revive(value: unknown): unknown {
	if (Array.isArray(value)) return value.map(revive);
	if (typeof value !== "object" || value === null) return value;
	if ("$hex" in value) return bytesOf(String(value.$hex));
	return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, revive(child)]));
}

describe("golden frames shared with the server's tests", () => {
	test("there are some in both directions", () => {
		expect(golden.filter((entry) => entry.direction === "client").length).toBeGreaterThan(0);
		expect(golden.filter((entry) => entry.direction === "server").length).toBeGreaterThan(0);
	});
	for (const { name, direction, hex, frame } of golden) {
		const wanted = revive(frame);
		test(`${direction} ${name}`, () => {
			if (direction === "server") {
				expect(decodeFrame(bytesOf(hex))).toEqual(wanted);
			} else {
				expect(decodeValue(bytesOf(hex))).toEqual(wanted);
				expect(decodeValue(encodeFrame(wanted as ClientFrame))).toEqual(wanted);
			}
		});
	}
});

describe("bytes that are no frame", () => {
	const rows = {
		type: "rows",
		run: "r",
		seq: 1,
		start: 0,
		count: 2,
		revs: [0, 0],
		metrics: ["norm"],
		layers: 3,
		dtype: "f2",
		entropy: null,
	};
	const lens = {
		type: "lens",
		run: "r",
		seq: 1,
		start: 4,
		count: 1,
		layers: [1, 2],
		top: 3,
		ids: new Uint8Array(24),
		probabilities: new Uint8Array(12),
		new_ids: [0],
		new_texts: ["a"],
	};
	const alternatives = {
		type: "alternatives",
		run: "r",
		seq: 1,
		start: 4,
		count: 2,
		top: 3,
		ids: new Uint8Array(24),
		logprobs: new Uint8Array(24),
		new_ids: [0],
		new_texts: ["a"],
	};
	const bad: [string, Uint8Array][] = [
		["nothing", new Uint8Array()],
		["half a map", Uint8Array.of(0x82, 0xa1)],
		["a number", encode(7)],
		["null", encode(null)],
		["a map without type", encode({ a: 1 })],
		["a type that is no text", encode({ type: 3 })],
		["rows with too few bytes", encode({ ...rows, data: new Uint8Array(11) })],
		["rows without bytes", encode({ ...rows, data: "no" })],
		["rows with too few revisions", encode({ ...rows, revs: [0], data: new Uint8Array(12) })],
		[
			"rows with too few entropies",
			encode({ ...rows, data: new Uint8Array(12), entropy: new Uint8Array(2) }),
		],
		["a lens with too few ids", encode({ ...lens, ids: new Uint8Array(20) })],
		["a lens with too few probabilities", encode({ ...lens, probabilities: new Uint8Array(10) })],
		["a lens without bytes", encode({ ...lens, ids: [1, 2] })],
		["a lens with a text too few", encode({ ...lens, new_texts: [] })],
		["alternatives with too few ids", encode({ ...alternatives, ids: new Uint8Array(20) })],
		["alternatives in half precision", encode({ ...alternatives, logprobs: new Uint8Array(12) })],
		["alternatives with a text too few", encode({ ...alternatives, new_texts: [] })],
	];
	test.each(bad)("%s is refused with a sentence", (_name, bytes) => {
		expect(() => decodeFrame(bytes)).toThrow(WireError);
		expect(() => decodeFrame(bytes)).toThrow(/^The server sent .*\.$/);
	});
	test("the same with the right bytes are taken", () => {
		expect(decodeFrame(encode({ ...rows, data: new Uint8Array(12) }))?.type).toBe("rows");
		const both = { ...rows, data: new Uint8Array(12), entropy: new Uint8Array(4) };
		expect(decodeFrame(encode(both))?.type).toBe("rows");
		expect(decodeFrame(encode(lens))?.type).toBe("lens");
		expect(decodeFrame(encode(alternatives))?.type).toBe("alternatives");
	});
});

describe("a server that is newer than the page", () => {
	test("a frame of a type that is not known is nothing", () => {
		expect(decodeFrame(encode({ type: "sing", song: 1 }))).toBeNull();
	});
	test("fields that are not known change nothing", () => {
		const pong = { type: "pong", t: 3, mood: { good: true } };
		expect(decodeFrame(encode(pong))).toMatchObject({ type: "pong", t: 3 });
	});
});
