// What an address says after its #, as name=value parts with & between them. It never leaves the browser, and a
// part is taken out once it was read: it is for one visit only.

/** The value under a name, or null. */
export function inFragment(hash: string, name: string): string | null {
	return new URLSearchParams(hash.slice(1)).get(name);
}

/** The fragment without a name; what else stands in it stays. */
export function withoutPart(hash: string, name: string): string {
	return hash
		.slice(1)
		.split("&")
		.filter((part) => part !== "" && part.split("=")[0] !== name)
		.join("&");
}

/** The value under a name, which is then gone from the address; or null. */
export function takePart(
	location: Pick<Location, "hash" | "pathname" | "search">,
	history: Pick<History, "replaceState">,
	name: string,
): string | null {
	const found = inFragment(location.hash, name);
	if (found === null) return null;
	const rest = withoutPart(location.hash, name);
	history.replaceState(null, "", `${location.pathname}${location.search}${rest === "" ? "" : `#${rest}`}`);
	return found;
}
