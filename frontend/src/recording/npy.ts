// The `.npy` format of numpy, versions 1.0 and 2.0, for the four kinds of numbers that a recording has. The header is
// a literal of a Python dict; it is read by one strict pattern and never evaluated. What is written is byte for byte
// what numpy writes, so that the same run saved here and by Python gives equal files.
//
// Arrays are little-endian and in C order, and so are the typed arrays of every machine that runs a browser.
import { RecordingError } from "./error";

const MAKERS = {
	"|u1": Uint8Array,
	"<i4": Int32Array,
	"<f4": Float32Array,
	/** Half floats, as their bits. */
	"<f2": Uint16Array,
} as const;

export type Dtype = keyof typeof MAKERS;
export type Numbers<D extends Dtype> = InstanceType<(typeof MAKERS)[D]> & ArrayBufferView<ArrayBuffer>;

export interface Npy<D extends Dtype = Dtype> {
	dtype: D;
	shape: readonly number[];
	values: Numbers<D>;
}

export interface NpyHeader {
	dtype: string;
	shape: readonly number[];
	/** Bytes before the first number. */
	length: number;
}

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
/** As much as numpy itself reads of one. */
const LONGEST_HEADER = 10_000;
/** Bytes that hold any header that is read. */
export const MOST_HEAD = LONGEST_HEADER + 12;
const MOST_AXES = 4;
const DICT =
	/^\{ *'descr' *: *'([^'\\]{1,16})' *, *'fortran_order' *: *(True|False) *, *'shape' *: *\(([\d, ]*)\) *,? *\} *\n?$/;
/** Numpy leaves room for the first axis to grow to so many digits. */
const GROWTH_DIGITS = 21;

/**
 * The header at the beginning of `bytes`, which hold at least `MOST_HEAD` bytes or all of a member of `size` bytes.
 * Throws where it is none, or its shape does not take exactly the bytes that follow it.
 */
export function readHeader(name: string, bytes: Uint8Array, size: number): NpyHeader {
	const refuse = (why: string): never => {
		throw new RecordingError(`${name} ${why}`);
	};
	if (size < 10 || MAGIC.some((byte, at) => bytes[at] !== byte)) refuse("is no .npy file.");
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const [major, minor] = [bytes[6], bytes[7]];
	if ((major !== 1 && major !== 2) || minor !== 0) {
		refuse(`is of version ${major}.${minor} of the .npy format; 1.0 and 2.0 can be read.`);
	}
	if (major === 2 && size < 12) refuse("ends in its header.");
	const start = major === 1 ? 10 : 12;
	const told = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
	if (told > LONGEST_HEADER) refuse(`has a header of ${told} bytes; at most ${LONGEST_HEADER} are read.`);
	const length = start + told;
	if (length > size) refuse("ends in its header.");
	const found = DICT.exec(String.fromCharCode(...bytes.subarray(start, length)));
	if (found === null) return refuse("has a header that is no plain description of an array.");
	const [, dtype, fortran, axes] = found;
	if (fortran === "True") refuse("is in Fortran order; only C order can be read.");
	const shape = shapeOf(axes!) ?? refuse("has a header whose shape cannot be read.");
	const itemsize = Object.hasOwn(MAKERS, dtype!) ? MAKERS[dtype as Dtype].BYTES_PER_ELEMENT : null;
	if (itemsize === null) return refuse(`holds numbers of the kind ${dtype}, which no recording has.`);
	// In floating point a product that is too large stays too large.
	const wanted = shape.reduce((product, axis) => product * axis, itemsize);
	if (wanted !== size - length) {
		refuse(`has ${size - length} bytes of numbers, and its shape (${shape.join(", ")}) takes ${wanted}.`);
	}
	return { dtype: dtype!, shape, length };
}

/** The array of a whole member. Its numbers are a copy, so that they are aligned. */
export function readNpy<D extends Dtype>(name: string, bytes: Uint8Array, dtype: D, axes: number): Npy<D> {
	const header = readHeader(name, bytes, bytes.length);
	holds(name, header, dtype, axes);
	const { buffer } = bytes.slice(header.length);
	const values = new MAKERS[dtype](buffer as ArrayBuffer) as Numbers<D>;
	return { dtype, shape: header.shape, values };
}

/** Throws where an array has other numbers or other axes than its place in the recording asks for. */
export function holds(name: string, { dtype, shape }: NpyHeader, wanted: Dtype, axes: number): void {
	if (dtype !== wanted) {
		throw new RecordingError(`${name} holds numbers of the kind ${dtype}, and must hold ${wanted}.`);
	}
	if (shape.length !== axes) {
		throw new RecordingError(`${name} has ${shape.length} axes, and must have ${axes}.`);
	}
}

/** The bytes of an array as `numpy.lib.format` writes them in version 1.0. */
export function writeNpy({ dtype, shape, values }: Npy): Uint8Array<ArrayBuffer> {
	const axes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
	const room = " ".repeat(shape.length === 0 ? 0 : Math.max(0, GROWTH_DIGITS - String(shape[0]).length));
	const dict = `{'descr': '${dtype}', 'fortran_order': False, 'shape': (${axes}), }${room}`;
	const length = dict.length + 1 + (64 - ((10 + dict.length + 1) % 64));
	const bytes = new Uint8Array(10 + length + values.byteLength);
	bytes.set(MAGIC);
	bytes.set([1, 0, length & 0xff, length >> 8], 6);
	bytes.set(new TextEncoder().encode(`${dict.padEnd(length - 1)}\n`), 10);
	bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 10 + length);
	return bytes;
}

function shapeOf(text: string): number[] | null {
	if (text.trim() === "") return [];
	const parts = text.split(",").map((part) => part.trim());
	// A tuple of one ends in a comma, and a longer one may.
	if (parts.length > 1 && parts.at(-1) === "") parts.pop();
	else if (parts.length === 1) return null;
	if (parts.length > MOST_AXES || parts.some((part) => !/^\d{1,15}$/.test(part))) return null;
	return parts.map(Number);
}
