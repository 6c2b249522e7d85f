import { expect, test } from "vitest";
import { decodeHalves, halfToNumber } from "./fp16";

/** The definition read off the standard, digit by digit, with no shared code. */
function reference(bits: number): number {
	const digits = bits.toString(2).padStart(16, "0");
	const negative = digits[0] === "1";
	const exponent = Number.parseInt(digits.slice(1, 6), 2);
	let significand = exponent === 0 ? 0 : 1;
	for (let i = 0; i < 10; i++) if (digits[6 + i] === "1") significand += 1 / 2 ** (i + 1);
	let value: number;
	if (exponent === 31) value = digits.slice(6).includes("1") ? Number.NaN : Infinity;
	else value = significand * 2 ** ((exponent === 0 ? 1 : exponent) - 15);
	return negative ? -value : value;
}

test("every one of the 65536 half floats is decoded as the standard says", () => {
	const bytes = new Uint8Array(65536 * 2);
	for (let bits = 0; bits < 65536; bits++) {
		bytes[2 * bits] = bits & 0xff;
		bytes[2 * bits + 1] = bits >> 8;
	}
	const decoded = decodeHalves(bytes);
	let wrong = 0;
	for (let bits = 0; bits < 65536; bits++) {
		const want = reference(bits);
		if (!Object.is(halfToNumber(bits), want)) wrong++;
		if (!Object.is(decoded[bits], want)) wrong++;
	}
	expect(wrong).toBe(0);
});

test("an unaligned view decodes like an aligned one", () => {
	const aligned = Uint8Array.of(0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b);
	const shifted = new Uint8Array(7);
	shifted.set(aligned, 1);
	expect([...decodeHalves(shifted.subarray(1))]).toEqual([1, -2, 65504]);
	expect([...decodeHalves(aligned)]).toEqual([1, -2, 65504]);
});
