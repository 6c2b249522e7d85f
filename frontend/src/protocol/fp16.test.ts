import { expect, test } from "vitest";
import { decodeHalves, halfToNumber, NO_NUMBER, numberToHalf } from "./fp16";

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

test("a number becomes the half float nearest to it", () => {
	let wrong = 0;
	for (let bits = 0; bits < 65536; bits++) {
		const value = halfToNumber(bits);
		if (Number.isNaN(value)) continue;
		if (numberToHalf(value) !== bits) wrong++;
		// Half-way to the next one, the even of the two; a little less or more, the nearer.
		const next = halfToNumber(bits + 1);
		if ((bits & 0x7fff) >= 0x7bff) continue;
		const middle = (value + next) / 2;
		const step = Math.abs(next - value) / 64;
		const away = Math.sign(value || next);
		if (numberToHalf(middle) !== bits + (bits & 1)) wrong++;
		if (numberToHalf(middle - away * step) !== bits) wrong++;
		if (numberToHalf(middle + away * step) !== bits + 1) wrong++;
	}
	expect(wrong).toBe(0);
	expect(numberToHalf(Number.NaN)).toBe(NO_NUMBER);
	expect([65519, 65520, 1e9, -1e9, 2 ** -26, -0].map(numberToHalf)).toEqual([
		0x7bff, 0x7c00, 0x7c00, 0xfc00, 0, 0x8000,
	]);
});
