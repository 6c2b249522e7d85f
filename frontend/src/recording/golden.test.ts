// Files of this version stay readable for ever, whoever wrote them, and their arrays are the same byte for byte.
import { readFileSync } from "node:fs";
import { unzipSync } from "fflate";
import { expect, test } from "vitest";
import { testRecording } from "../testing/recording";
import { readRecording } from "./read";
import { writeRecording } from "./write";

const PAGE = new URL("./golden/page-1.steersight.npz", import.meta.url);
const PYTHON = new URL("../../../backend/tests/golden/recording-1.steersight.npz", import.meta.url);

/** The arrays of a file, by their names. */
function arrays(bytes: Uint8Array): Record<string, Uint8Array> {
	const { "meta.json": _, ...rest } = unzipSync(bytes);
	return rest;
}

test("the page's own file of version 1 is read", async () => {
	expect(await readRecording(readFileSync(PAGE))).toEqual(testRecording());
});

test("the page still writes the arrays of its file as they were", async () => {
	expect(arrays(await writeRecording(testRecording()))).toEqual(arrays(readFileSync(PAGE)));
});

test("what Python wrote is read, and its arrays are written again as they were", async () => {
	const bytes = readFileSync(PYTHON);
	expect(arrays(await writeRecording(await readRecording(bytes)))).toEqual(arrays(bytes));
});
