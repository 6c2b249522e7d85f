import { expect, test } from "vitest";
import { inFragment, takePart, withoutPart } from "./fragment";

test("parts of a fragment are found and taken out by name", () => {
	expect(inFragment("#watch=abc&s=joy,0.2", "s")).toBe("joy,0.2");
	expect(inFragment("#watch=abc", "s")).toBeNull();
	expect(withoutPart("#watch=abc&s=joy,0.2", "s")).toBe("watch=abc");
	expect(withoutPart("#s=joy,0.2", "s")).toBe("");
	expect(inFragment("#s=joy%2C0.2", "s")).toBe("joy,0.2");
});

test("a part that was taken is gone from the address, and only that one", () => {
	const location = { hash: "#watch=r7&s=joy,0.2", pathname: "/", search: "?a=1" };
	const addresses: string[] = [];
	const history = { replaceState: (_: unknown, __: string, url: string) => addresses.push(url) };
	const take = (name: string) => takePart(location, history as unknown as History, name);
	expect(take("token")).toBeNull();
	expect(addresses).toEqual([]);
	expect(take("watch")).toBe("r7");
	location.hash = "#s=joy,0.2";
	expect(take("s")).toBe("joy,0.2");
	expect(addresses).toEqual(["/?a=1#s=joy,0.2", "/?a=1"]);
});
