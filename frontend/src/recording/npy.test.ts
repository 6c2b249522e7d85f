import { expect, test } from "vitest";
import { RecordingError } from "./error";
import { readNpy, writeNpy } from "./npy";

const BYTES = writeNpy({ dtype: "<f2", shape: [2, 3], values: Uint16Array.of(1, 2, 3, 4, 5, 6) });

/** The bytes of a file with another header. */
function withHeader(dict: string, numbers = 12, version: [number, number] = [1, 0]): Uint8Array {
	const header = new TextEncoder().encode(dict);
	const start = version[0] === 2 ? 12 : 10;
	const bytes = new Uint8Array(start + header.length + numbers);
	bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), ...version]);
	const view = new DataView(bytes.buffer);
	if (start === 12) view.setUint32(8, header.length, true);
	else view.setUint16(8, header.length, true);
	bytes.set(header, start);
	return bytes;
}

const GOOD = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }\n";

test("an array is written as numpy writes it, and read again", () => {
	const text = new TextDecoder("latin1").decode(BYTES.subarray(0, 128));
	const dict = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }";
	expect(text).toBe(`\x93NUMPY\x01\x00v\x00${dict.padEnd(117)}\n`);
	const { shape, values } = readNpy("a", BYTES, "<f2", 2);
	expect([shape, [...values]]).toEqual([
		[2, 3],
		[1, 2, 3, 4, 5, 6],
	]);
});

test("a list has the comma of a tuple of one, and an empty one has no numbers", () => {
	const bytes = writeNpy({ dtype: "|u1", shape: [0], values: new Uint8Array(0) });
	expect(bytes.length).toBe(128);
	expect(new TextDecoder("latin1").decode(bytes)).toContain("'shape': (0,), }");
	expect(readNpy("a", bytes, "|u1", 1).values.length).toBe(0);
});

test("version 2.0 is read, and a header with less room", () => {
	expect(readNpy("a", withHeader(GOOD, 12, [2, 0]), "<f2", 2).shape).toEqual([2, 3]);
	expect(readNpy("a", withHeader(GOOD.trim()), "<f2", 2).shape).toEqual([2, 3]);
});

test.each([
	["no array", new Uint8Array(200), "is no .npy file"],
	["too short", BYTES.subarray(0, 9), "is no .npy file"],
	["a header that does not end", BYTES.subarray(0, 60), "ends in its header"],
	["version 3.0", withHeader(GOOD, 12, [3, 0]), "is of version 3.0"],
	["Fortran order", withHeader(GOOD.replace("False", "True")), "Fortran order"],
	["objects", withHeader(GOOD.replace("<f2", "|O")), "of the kind |O"],
	["big-endian numbers", withHeader(GOOD.replace("<f2", ">f2")), "of the kind >f2"],
	["a name of the language", withHeader(GOOD.replace("<f2", "toString")), "of the kind toString"],
	["a call", withHeader(GOOD.replace("False", "print(1)")), "no plain description"],
	["another field", withHeader(GOOD.replace("}", "'x': 1}")), "no plain description"],
	["more numbers than there are", withHeader(GOOD.replace("2, 3", "2, 4")), "takes 16"],
	["a shape beyond all numbers", withHeader(GOOD.replace("2, 3", "99999999999, 99999999999")), "takes"],
	["a negative axis", withHeader(GOOD.replace("2, 3", "-2, 3")), "no plain description"],
	["a shape of commas", withHeader(GOOD.replace("2, 3", "2,,3")), "shape cannot be read"],
	["a number where a tuple must be", withHeader(GOOD.replace("2, 3", "6")), "shape cannot be read"],
	["an enormous header", withHeader(GOOD.padEnd(20_000)), "header of 20000 bytes"],
])("%s is refused", (_, bytes, why) => {
	expect(() => readNpy("runs/0/a.npy", bytes, "<f2", 2)).toThrow(RecordingError);
	expect(() => readNpy("runs/0/a.npy", bytes, "<f2", 2)).toThrow(why);
	expect(() => readNpy("runs/0/a.npy", bytes, "<f2", 2)).toThrow("runs/0/a.npy");
});

test("other numbers and other axes than a place asks for are refused", () => {
	expect(() => readNpy("a", BYTES, "<i4", 2)).toThrow("must hold <i4");
	expect(() => readNpy("a", BYTES, "<f2", 1)).toThrow("must have 1");
});
