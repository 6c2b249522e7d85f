// The token that a server may ask for. It lasts as long as the tab, and it is never part of an address: those are
// kept in histories and logs.
const KEY = "steersight.token.v1";

export function loadToken(storage: Pick<Storage, "getItem"> | null): string | null {
	return storage?.getItem(KEY) ?? null;
}

/** Null forgets it. */
export function saveToken(
	storage: Pick<Storage, "setItem" | "removeItem"> | null,
	token: string | null,
): void {
	try {
		if (token === null) storage?.removeItem(KEY);
		else storage?.setItem(KEY, token);
	} catch {
		// Storage may be full; the token then lasts as long as the page.
	}
}
