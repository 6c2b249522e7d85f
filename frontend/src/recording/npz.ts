// Members of a recording's zip file, unpacked and packed by fflate in slices. Nothing is allocated for a member before
// its claims have been held against the file and, for an array, against its own header.
import { Inflate, strToU8, Zip, ZipDeflate } from "fflate";
import { Breath } from "./breath";
import { Crc } from "./crc";
import { RecordingError } from "./error";
import { type Dtype, holds, MOST_HEAD, type Npy, readHeader, readNpy, writeNpy } from "./npy";
import { type Member, membersOf } from "./zip";

/** Packed bytes that are unpacked at once: they may become a thousand times as many. */
const SLICE = 8 * 1024;
/** Bytes that are packed at once. */
const PACK_SLICE = 256 * 1024;
/** What `meta.json` may hold. */
const MOST_JSON = 32 * 2 ** 20;
/** Numbers of half floats pack badly: more effort takes longer and saves little. */
const LEVEL = 3;
const FIRST_DAY = new Date(1980, 0, 1);

/** Reads the members of one file. */
export class Npz {
	readonly #members: Map<string, Member>;
	readonly #breath = new Breath();

	constructor(bytes: Uint8Array, mostBytes?: number) {
		this.#members = membersOf(bytes, mostBytes);
	}

	has(name: string): boolean {
		return this.#members.has(name);
	}

	async array<D extends Dtype>(name: string, dtype: D, axes: number): Promise<Npy<D>> {
		const member = this.#member(name);
		const head = await this.#unpack(member, Math.min(member.size, MOST_HEAD));
		holds(name, readHeader(name, head, member.size), dtype, axes);
		return readNpy(name, await this.#whole(member), dtype, axes);
	}

	/** A member that is JSON. What it says is not checked. */
	async json(name: string): Promise<unknown> {
		const member = this.#member(name);
		if (member.size > MOST_JSON) {
			throw new RecordingError(`${name} is ${member.size} bytes long; at most ${MOST_JSON} are read.`);
		}
		const bytes = await this.#whole(member);
		try {
			return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
		} catch {
			throw new RecordingError(`${name} is no JSON text.`);
		}
	}

	#member(name: string): Member {
		const member = this.#members.get(name);
		if (member === undefined) throw new RecordingError(`The file has no ${name}.`);
		return member;
	}

	async #whole(member: Member): Promise<Uint8Array> {
		const bytes = await this.#unpack(member, member.size);
		const crc = new Crc();
		for (let at = 0; at < bytes.length; at += PACK_SLICE) {
			crc.add(bytes.subarray(at, at + PACK_SLICE));
			await this.#breath.take();
		}
		if (crc.value !== member.crc)
			throw new RecordingError(`${member.name} is damaged: its checksum differs.`);
		return bytes;
	}

	/** The first `wanted` bytes of a member; where that is all of it, it must end there. */
	async #unpack({ name, deflated, packed, size }: Member, wanted: number): Promise<Uint8Array> {
		if (!deflated) return packed.subarray(0, wanted);
		const bytes = new Uint8Array(wanted);
		let length = 0;
		const inflate = new Inflate((piece) => {
			if (length < wanted) bytes.set(piece.subarray(0, wanted - length), length);
			length += piece.length;
		});
		try {
			for (let at = 0; at < packed.length && (length < wanted || wanted === size); at += SLICE) {
				if (length > size) break;
				inflate.push(packed.subarray(at, at + SLICE), at + SLICE >= packed.length);
				await this.#breath.take();
			}
		} catch {
			throw new RecordingError(`${name} is damaged: it cannot be unpacked.`);
		}
		if (length < wanted || (wanted === size && length !== size)) {
			throw new RecordingError(`${name} has not the ${size} bytes that the file's directory claims.`);
		}
		return bytes;
	}
}

/** What goes into a file, in its order. Made one after the other: the bytes of an array are copied when its turn comes. */
export type Packed = readonly (readonly [name: string, content: Npy | string])[];

/** The bytes of a zip file of these members. The same members give the same bytes. */
export async function pack(members: Packed): Promise<Uint8Array<ArrayBuffer>> {
	const breath = new Breath();
	const pieces: Uint8Array[] = [];
	let problem: Error | null = null;
	const zip = new Zip((error, piece) => {
		problem ??= error;
		if (error === null) pieces.push(piece);
	});
	for (const [name, content] of members) {
		const file = new ZipDeflate(name, { level: LEVEL });
		file.mtime = FIRST_DAY;
		zip.add(file);
		const bytes = typeof content === "string" ? strToU8(content) : writeNpy(content);
		for (let at = 0; ; at += PACK_SLICE) {
			const last = at + PACK_SLICE >= bytes.length;
			file.push(bytes.subarray(at, at + PACK_SLICE), last);
			await breath.take();
			if (last) break;
		}
	}
	zip.end();
	if (problem !== null) throw problem;
	const whole = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
	let at = 0;
	for (const piece of pieces) {
		whole.set(piece, at);
		at += piece.length;
	}
	return whole;
}
