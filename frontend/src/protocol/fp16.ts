// IEEE 754 half floats, as rows frames carry them, to numbers. Browsers have no half-float array that can
// be relied on, and a frame's bytes may start at an odd offset, so bytes are read one by one.

/** The value of one half float given as its 16 bits. */
export function halfToNumber(bits: number): number {
	const sign = bits & 0x8000 ? -1 : 1;
	const exponent = (bits >> 10) & 0x1f;
	const fraction = bits & 0x3ff;
	if (exponent === 0) return sign * fraction * 2 ** -24;
	if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN;
	return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const table = Float32Array.from({ length: 65536 }, (_, bits) => halfToNumber(bits));

/** Decode little-endian half floats. `bytes` may be an unaligned view; a trailing odd byte is ignored. */
export function decodeHalves(bytes: Uint8Array): Float32Array {
	const values = new Float32Array(bytes.length >> 1);
	for (let i = 0; i < values.length; i++) {
		values[i] = table[bytes[2 * i]! | (bytes[2 * i + 1]! << 8)]!;
	}
	return values;
}
