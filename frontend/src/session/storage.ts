// The browser's two stores as the page uses them: `lasting` for what a person sets once and finds again, `tab` for
// the conversation and what belongs to it, which go with the tab.
//
// Servers behind path prefixes of one host share these stores. Each has names of its own there: a token that was
// typed for one must not be said to another.

export type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

export interface Stores {
	lasting: Store | null;
	tab: Store | null;
}

/** The folder that a page stands in, "/" where there is no prefix. */
export function folderOf(page: string): string {
	return new URL(".", page).pathname;
}

/** A store of which one folder sees its own names only. */
export function within(store: Store | null, folder: string): Store | null {
	if (store === null || folder === "/") return store;
	const own = (name: string) => `${folder}${name}`;
	return {
		getItem: (name) => store.getItem(own(name)),
		setItem: (name, value) => store.setItem(own(name), value),
		removeItem: (name) => store.removeItem(own(name)),
	};
}

/** Null where the browser forbids it. */
export function lastingStorage(): Store | null {
	return open(() => window.localStorage);
}

/** What lasts as long as this tab, also over a reload; null where the browser forbids it. */
export function tabStorage(): Store | null {
	return open(() => window.sessionStorage);
}

export function pageStores(): Stores {
	return { lasting: lastingStorage(), tab: tabStorage() };
}

function open(store: () => Storage): Store | null {
	try {
		return within(store(), folderOf(window.location.href));
	} catch {
		return null;
	}
}
