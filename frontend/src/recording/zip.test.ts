import { zipSync } from "fflate";
import { expect, test } from "vitest";
import { RecordingError } from "./error";
import { Npz } from "./npz";
import { membersOf } from "./zip";

const ZEROS = new Uint8Array(10_000);

function zip(files: Record<string, Uint8Array> = { "a.npy": ZEROS, "b.json": Uint8Array.of(123, 125) }) {
	return zipSync(files, { level: 6 });
}

/** Where the directory's entry of a member stands, and its own header. */
function placesOf(bytes: Uint8Array, index: number): { entry: number; header: number; view: DataView } {
	const view = new DataView(bytes.buffer);
	let entry = view.getUint32(bytes.length - 6, true);
	for (let i = 0; i < index; i++) {
		entry += 46 + view.getUint16(entry + 28, true) + view.getUint16(entry + 30, true);
	}
	return { entry, header: view.getUint32(entry + 42, true), view };
}

function patched(patch: (view: DataView, entry: number, header: number, bytes: Uint8Array) => void) {
	const bytes = zip();
	const { entry, header, view } = placesOf(bytes, 0);
	patch(view, entry, header, bytes);
	return bytes;
}

function named(name: string): Uint8Array {
	return zip({ [name]: ZEROS });
}

test("members are found with their names and sizes", () => {
	const members = membersOf(zip());
	expect([...members.keys()]).toEqual(["a.npy", "b.json"]);
	expect(members.get("a.npy")).toMatchObject({ size: 10_000, deflated: true });
});

test("a comment may stand at the end", () => {
	const bytes = new Uint8Array([...zip(), 104, 105]);
	bytes[bytes.length - 4] = 2;
	expect(membersOf(bytes).size).toBe(2);
});

test.each<[string, Uint8Array, string]>([
	["nothing", new Uint8Array(0), "no zip file"],
	["a text", new TextEncoder().encode("hello".repeat(100)), "no zip file"],
	["a file that was cut", zip().subarray(0, -1), "no zip file"],
	["a directory that is not there", zip().subarray(40), "directory"],
	["an absolute name", named("/etc/x.npy"), "the name"],
	["a name with a drive", named("C:x.npy"), "the name"],
	["a name that leads out", named("runs/../../x"), "the name"],
	["a name with a backslash", named("runs\\x"), "the name"],
	["an encrypted member", patched((view, at) => view.setUint16(at + 8, 1, true)), "is encrypted"],
	[
		"an unknown compression",
		patched((view, at) => view.setUint16(at + 10, 12, true)),
		"compressed in a way (12)",
	],
	["a zip64 member", patched((view, at) => view.setUint32(at + 24, 0xffffffff, true)), "larger than"],
	[
		"a size that deflate cannot hold",
		patched((view, at) => view.setUint32(at + 24, 400_000_000, true)),
		"claims",
	],
	[
		"a stored member of two sizes",
		patched((view, at) => view.setUint16(at + 10, 0, true)),
		"two different sizes",
	],
	["a member that is elsewhere", patched((view, at) => view.setUint32(at + 42, 5, true)), "not where"],
	[
		"a member beyond the directory",
		patched((view, at) => view.setUint32(at + 20, 5_000, true)),
		"reaches into",
	],
	[
		"a header of another name",
		patched((_, __, header, bytes) => bytes.set([98], header + 30)),
		"says otherwise",
	],
	[
		"a header of another way",
		patched((view, _, header) => view.setUint16(header + 8, 0, true)),
		"says otherwise",
	],
	[
		"a zip64 directory",
		patched((view, _, __, { length }) => view.setUint32(length - 6, 0xffffffff, true)),
		"zip64",
	],
	[
		"a zip in parts",
		patched((view, _, __, { length }) => view.setUint16(length - 14, 1, true)),
		"several parts",
	],
	["a count that is wrong", patched((view, _, __, { length }) => setCount(view, length, 3)), "is damaged"],
	[
		"a count that leaves some out",
		patched((view, _, __, { length }) => setCount(view, length, 1)),
		"is damaged",
	],
])("%s is refused", (_, bytes, why) => {
	expect(() => membersOf(bytes)).toThrow(RecordingError);
	expect(() => membersOf(bytes)).toThrow(why);
});

function setCount(view: DataView, length: number, count: number): void {
	view.setUint16(length - 14, count, true);
	view.setUint16(length - 12, count, true);
}

test("a name that stands twice is refused", () => {
	const bytes = zip({ "a.npy": ZEROS, "b.npy": ZEROS });
	const { entry, header } = placesOf(bytes, 1);
	bytes[entry + 46] = 97;
	bytes[header + 30] = 97;
	expect(() => membersOf(bytes)).toThrow("a.npy twice");
});

test("members that share their bytes are refused", () => {
	const bytes = zip({ "a.npy": ZEROS, "b.npy": ZEROS });
	const [first, second] = [placesOf(bytes, 0), placesOf(bytes, 1)];
	second.view.setUint32(second.entry + 42, first.header, true);
	bytes[second.entry + 46] = 97;
	expect(() => membersOf(bytes)).toThrow(/twice|share/);
	bytes[second.entry + 46] = 98;
	expect(() => membersOf(bytes)).toThrow("says otherwise");
});

test("more bytes than a page may take are refused before any is unpacked", () => {
	expect(() => membersOf(zip(), 9_999)).toThrow("more than 9999 bytes");
});

test("a member whose bytes differ from its claims is refused", async () => {
	const read = (bytes: Uint8Array) => new Npz(bytes).json("b.json");
	const text = (content: string) => zip({ "b.json": new TextEncoder().encode(content) });
	await expect(read(text('{"a": 1}'))).resolves.toEqual({ a: 1 });
	const wrongSum = text('{"a": 1}');
	const { entry, header, view } = placesOf(wrongSum, 0);
	view.setUint32(entry + 16, 1, true);
	await expect(read(wrongSum)).rejects.toThrow("checksum");
	const long = text(`"${"a".repeat(500)}"`);
	placesOf(long, 0).view.setUint32(placesOf(long, 0).entry + 24, 400, true);
	await expect(read(long)).rejects.toThrow("has not the 400 bytes");
	const broken = text(`"${"abcdefgh".repeat(50)}"`);
	broken.fill(0xff, header + 36, header + 44);
	await expect(read(broken)).rejects.toThrow(RecordingError);
	await expect(read(text("{"))).rejects.toThrow("no JSON text");
	await expect(new Npz(zip()).json("c.json")).rejects.toThrow("has no c.json");
});
