import { afterEach, expect, test, vi } from "vitest";
import { bytesAt, bytesOf, fileBytes, recordingIn, withoutRecording } from "./doors";
import { RecordingError } from "./error";

const PAGE = "http://lab:8000/desk/";
const none = () => null;

afterEach(() => vi.unstubAllGlobals());

test("an address names a recording, and says whether there is a server", () => {
	expect(recordingIn("#recording=recording&only")).toEqual({ path: "recording", only: true });
	expect(recordingIn("#s=joy&recording=api%2Fruns%2Fr1%2Frecording")).toEqual({
		path: "api/runs/r1/recording",
		only: false,
	});
	expect(recordingIn("#s=joy")).toBeNull();
	expect(withoutRecording("#s=joy&recording=x&only")).toBe("s=joy");
});

test("a path beside the page is fetched, with the token", async () => {
	const asked: [string, string | null][] = [];
	vi.stubGlobal("fetch", async (path: string, init: RequestInit) => {
		asked.push([path, new Headers(init.headers).get("authorization")]);
		return new Response(Uint8Array.of(1, 2, 3));
	});
	expect(await bytesAt("files/a.npz", PAGE, () => "secret")).toEqual(Uint8Array.of(1, 2, 3));
	expect(asked).toEqual([["http://lab:8000/desk/files/a.npz", "Bearer secret"]]);
});

test.each([
	"http://lab:8000/a.npz",
	"https://elsewhere/a.npz",
	"//elsewhere/a.npz",
	"\\\\elsewhere\\a.npz",
	" //elsewhere/a.npz",
	"data:,x",
	"javascript:alert(1)",
	"file:///etc/passwd",
	"http://",
])("%s is not fetched", async (path) => {
	const fetched = vi.fn();
	vi.stubGlobal("fetch", fetched);
	await expect(bytesAt(path, PAGE, none)).rejects.toThrow("must be a path on this server");
	expect(fetched).not.toHaveBeenCalled();
});

test("a server's refusal is said", async () => {
	vi.stubGlobal("fetch", async () => Response.json({ error: "There is no such run." }, { status: 404 }));
	await expect(bytesAt("a.npz", PAGE, none)).rejects.toThrow("There is no such run.");
});

test("a file is read, and one that is too large is not", async () => {
	expect(await fileBytes(new Blob([Uint8Array.of(4)]))).toEqual(Uint8Array.of(4));
	const large = { size: 2 ** 30, arrayBuffer: () => Promise.reject(new Error("read")) } as unknown as Blob;
	await expect(fileBytes(large)).rejects.toThrow("larger than 512 MiB");
	const gone = { size: 1, arrayBuffer: () => Promise.reject(new Error("gone")) } as unknown as Blob;
	await expect(fileBytes(gone)).rejects.toThrow("cannot read it");
});

test("what a page carries is decoded, line breaks and all", async () => {
	expect(await bytesOf("aGVs\n bG8=\n")).toEqual(new TextEncoder().encode("hello"));
	await expect(bytesOf("no base64!")).rejects.toThrow(RecordingError);
});
