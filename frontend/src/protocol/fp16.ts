// IEEE 754 half floats, as rows frames carry them. Browsers have no half-float array that can be relied on, so
// numbers stay the 16 bits that were sent ("codes") until somebody reads one: a table gives the value of each code.

/** The code of NaN: no number. */
export const NO_NUMBER = 0x7e00;
/** Codes whose exponent has all these bits are infinities and NaN. */
const NOT_FINITE = 0x7c00;

/** The value of one half float given as its 16 bits. */
export function halfToNumber(bits: number): number {
	const sign = bits & 0x8000 ? -1 : 1;
	const exponent = (bits >> 10) & 0x1f;
	const fraction = bits & 0x3ff;
	if (exponent === 0) return sign * fraction * 2 ** -24;
	if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN;
	return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The value of every code. */
export const HALF_VALUES: Float32Array = Float32Array.from({ length: 65536 }, (_, bits) =>
	halfToNumber(bits),
);

/** Whether a code is a number, and neither NaN nor an infinity. */
export function isFiniteCode(code: number): boolean {
	return (code & NOT_FINITE) !== NOT_FINITE;
}

const exact = new Float32Array(1);
const exactBits = new Uint32Array(exact.buffer);

/** The code nearest to a number, of two that are equally near the even one. */
export function numberToHalf(value: number): number {
	exact[0] = value;
	const bits = exactBits[0]!;
	const sign = (bits >>> 16) & 0x8000;
	const exponent = (bits >>> 23) & 0xff;
	const fraction = bits & 0x7fffff;
	if (exponent === 0xff) return fraction === 0 ? sign | NOT_FINITE : NO_NUMBER;
	const half = exponent - 112;
	if (half >= 0x1f) return sign | NOT_FINITE;
	// Below 2^-14 a half float has a fixed step and no leading 1 that is left out; below half of it there is only 0.
	if (half < -10) return sign;
	const whole = half > 0 ? fraction : fraction | 0x800000;
	const shift = half > 0 ? 13 : 14 - half;
	const kept = whole >>> shift;
	const rest = whole & ((1 << shift) - 1);
	const middle = 1 << (shift - 1);
	const up = rest > middle || (rest === middle && (kept & 1) === 1) ? 1 : 0;
	// A fraction that is rounded up to 1 goes into the exponent, as it should.
	return sign | (((half > 0 ? half << 10 : 0) + kept + up) & 0x7fff);
}

const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/**
 * The codes that little-endian bytes hold; a trailing odd byte is ignored. They may be the bytes themselves, seen
 * differently: whoever keeps them copies them.
 */
export function halfCodes(bytes: Uint8Array): Uint16Array {
	const count = bytes.length >> 1;
	if (littleEndian) {
		const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
		return new Uint16Array(aligned.buffer, aligned.byteOffset, count);
	}
	const codes = new Uint16Array(count);
	for (let i = 0; i < count; i++) codes[i] = bytes[2 * i]! | (bytes[2 * i + 1]! << 8);
	return codes;
}

/** The numbers that little-endian half floats hold. `bytes` may be an unaligned view. */
export function decodeHalves(bytes: Uint8Array): Float32Array {
	return Float32Array.from(halfCodes(bytes), (code) => HALF_VALUES[code]!);
}
