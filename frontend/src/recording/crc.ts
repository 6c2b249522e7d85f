// CRC-32 as zip files carry it (ISO 3309, reflected, polynomial 0xEDB88320), over bytes that come in pieces.
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
	let rest = byte;
	for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
	return rest;
});

export class Crc {
	#rest = 0xffffffff;

	add(bytes: Uint8Array): void {
		let rest = this.#rest;
		for (let i = 0; i < bytes.length; i++) rest = (rest >>> 8) ^ TABLE[(rest ^ bytes[i]!) & 0xff]!;
		this.#rest = rest;
	}

	get value(): number {
		return ~this.#rest >>> 0;
	}
}
