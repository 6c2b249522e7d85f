// The directory of a zip file, as far as a recording may use it. It is read before any member is unpacked, and what
// it claims is held against limits and against the bytes that are there: a small file that says that it is a large one,
// members that share bytes, and names that lead out of a folder are refused.
import { RecordingError } from "./error";

export interface Member {
	readonly name: string;
	readonly deflated: boolean;
	readonly packed: Uint8Array;
	/** Bytes once unpacked, and their CRC-32, as the directory claims. */
	readonly size: number;
	readonly crc: number;
}

export const MOST_MEMBERS = 100_000;
/** Unpacked bytes of all members together. */
export const MOST_BYTES = 512 * 2 ** 20;
/** Deflate makes at most 1,032 bytes of one. */
const MOST_RATIO = 1_100;
const END = 0x06054b50;
const END_BYTES = 22;
const CENTRAL = 0x02014b50;
const CENTRAL_BYTES = 46;
const LOCAL = 0x04034b50;
const LOCAL_BYTES = 30;
/** Bits of the flags that say that a member, or its name, is encrypted. */
const ENCRYPTED = 0x2041;
const TOO_LARGE = 0xffffffff;

/** The members by their names. Throws a `RecordingError` where the file is no zip, or not one to be unpacked. */
export function membersOf(bytes: Uint8Array, mostBytes = MOST_BYTES): Map<string, Member> {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const end = endOf(view);
	const [count, size, start] = [
		view.getUint16(end + 10, true),
		view.getUint32(end + 12, true),
		view.getUint32(end + 16, true),
	];
	if (count === 0xffff || size === TOO_LARGE || start === TOO_LARGE) {
		throw new RecordingError("The file has a zip64 directory: it is larger than this page opens.");
	}
	if (count > MOST_MEMBERS) throw new RecordingError(`The file has more than ${MOST_MEMBERS} members.`);
	if (view.getUint32(end + 4, true) !== 0 || view.getUint16(end + 8, true) !== count) {
		throw new RecordingError("The file is one part of a zip in several parts.");
	}
	if (start + size !== end) throw new RecordingError("The file's directory is not where its end says.");

	const members = new Map<string, Member>();
	const places: [start: number, end: number][] = [];
	let [at, total] = [start, 0];
	for (let index = 0; index < count; index++) {
		if (at + CENTRAL_BYTES > end || view.getUint32(at, true) !== CENTRAL) {
			throw new RecordingError("The file's directory is damaged.");
		}
		const entry = readEntry(view, bytes, at, end);
		const place = placeOf(view, bytes, entry, start);
		places.push([entry.offset, place.end]);
		if (members.has(entry.name)) throw new RecordingError(`The file has the member ${entry.name} twice.`);
		total += entry.size;
		if (total > mostBytes) {
			throw new RecordingError(`The file's members take more than ${mostBytes} bytes unpacked.`);
		}
		const { name, deflated, size, crc } = entry;
		members.set(name, { name, deflated, size, crc, packed: bytes.subarray(place.start, place.end) });
		at = entry.next;
	}
	if (at !== end) throw new RecordingError("The file's directory is damaged.");
	places.sort(([one], [other]) => one - other);
	if (places.some(([from], index) => index > 0 && from < places[index - 1]![1])) {
		throw new RecordingError("Members of the file share bytes.");
	}
	return members;
}

/** Where the record at the end of a zip file stands: a comment may follow it. */
function endOf(view: DataView): number {
	const last = view.byteLength - END_BYTES;
	for (let at = last; at >= Math.max(0, last - 0xffff); at--) {
		if (view.getUint32(at, true) !== END) continue;
		if (at + END_BYTES + view.getUint16(at + 20, true) === view.byteLength) return at;
	}
	throw new RecordingError("The file is no zip file, or its end is missing.");
}

interface Entry {
	name: string;
	rawName: Uint8Array;
	flags: number;
	method: number;
	deflated: boolean;
	crc: number;
	packed: number;
	size: number;
	/** Of the member's own header. */
	offset: number;
	/** Of the next entry. */
	next: number;
}

function readEntry(view: DataView, bytes: Uint8Array, at: number, end: number): Entry {
	const half = (offset: number) => view.getUint16(at + offset, true);
	const word = (offset: number) => view.getUint32(at + offset, true);
	const [flags, method, crc, packed, size, offset] = [
		half(8),
		half(10),
		word(16),
		word(20),
		word(24),
		word(42),
	];
	const named = at + CENTRAL_BYTES + half(28);
	const next = named + half(30) + half(32);
	if (next > end) throw new RecordingError("The file's directory is damaged.");
	const rawName = bytes.subarray(at + CENTRAL_BYTES, named);
	const name = nameOf(rawName);
	const refuse = (why: string): never => {
		throw new RecordingError(`${name} ${why}`);
	};
	if (flags & ENCRYPTED) refuse("is encrypted.");
	if (method !== 0 && method !== 8) refuse(`is compressed in a way (${method}) that no recording uses.`);
	if ([packed, size, offset].includes(TOO_LARGE)) refuse("is larger than this page opens.");
	if (method === 0 && packed !== size) refuse("is stored as it is, with two different sizes.");
	if (size > packed * MOST_RATIO) refuse(`claims ${size} bytes of ${packed}, more than deflate can hold.`);
	return { name, rawName, flags, method, deflated: method === 8, crc, packed, size, offset, next };
}

/** Where a member's packed bytes are. Its own header must say the same as the directory. */
function placeOf(
	view: DataView,
	bytes: Uint8Array,
	entry: Entry,
	directory: number,
): { start: number; end: number } {
	const { name, rawName, method, flags, offset, packed } = entry;
	if (offset + LOCAL_BYTES > directory || view.getUint32(offset, true) !== LOCAL) {
		throw new RecordingError(`${name} is not where the file's directory says.`);
	}
	const named = offset + LOCAL_BYTES;
	const start = named + view.getUint16(offset + 26, true) + view.getUint16(offset + 28, true);
	const same =
		view.getUint16(offset + 6, true) === flags &&
		view.getUint16(offset + 8, true) === method &&
		view.getUint16(offset + 26, true) === rawName.length &&
		rawName.every((byte, index) => bytes[named + index] === byte);
	if (!same) throw new RecordingError(`${name} has a header that says otherwise than the file's directory.`);
	if (start + packed > directory) throw new RecordingError(`${name} reaches into the file's directory.`);
	return { start, end: start + packed };
}

function nameOf(raw: Uint8Array): string {
	let name: string;
	try {
		name = new TextDecoder("utf-8", { fatal: true }).decode(raw);
	} catch {
		throw new RecordingError("The file has a member whose name is no text.");
	}
	const bad =
		name === "" ||
		name.includes("\0") ||
		name.includes("\\") ||
		/^(\/|[A-Za-z]:)/.test(name) ||
		name.split("/").some((part) => part === ".." || part === ".");
	if (bad) throw new RecordingError(`The file has a member with the name ${JSON.stringify(name)}.`);
	return name;
}
