import { expect, test } from "vitest";
import { folderOf, type Store, within } from "./storage";

function memory(): Store & { names(): string[] } {
	const kept = new Map<string, string>();
	return {
		getItem: (name) => kept.get(name) ?? null,
		setItem: (name, value) => void kept.set(name, value),
		removeItem: (name) => void kept.delete(name),
		names: () => [...kept.keys()],
	};
}

test("servers behind two prefixes of one host do not see what the other's page keeps", () => {
	const store = memory();
	const [root, a, b] = ["/", "/a/", "/b/"].map((folder) => within(store, folder)!);
	a!.setItem("token", "secret");
	expect([root!.getItem("token"), a!.getItem("token"), b!.getItem("token")]).toEqual([null, "secret", null]);
	b!.removeItem("token");
	root!.setItem("token", "other");
	expect([store.names(), a!.getItem("token")]).toEqual([["/a/token", "token"], "secret"]);
	a!.removeItem("token");
	expect(store.names()).toEqual(["token"]);
	expect(within(null, "/a/")).toBeNull();
});

test("a page's folder is its address without its last part", () => {
	expect(folderOf("http://h:8000/")).toBe("/");
	expect(folderOf("http://h/?x=/y/#s=1/2")).toBe("/");
	expect(folderOf("https://h/lab/steersight/index.html#s=joy,1")).toBe("/lab/steersight/");
});
