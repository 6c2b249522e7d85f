// Parts of the page that are loaded when they are first wanted. `preload` has them there before that, once the page has
// nothing else to do.

export const NOT_LOADED = "This part of the page could not be loaded. Reload the page, and try again.";
const waiting: (() => Promise<unknown>)[] = [];

/** A part did not come, such as when the server has another version of the page by now. */
export class NotLoadedError extends Error {
	override name = "NotLoadedError";
}

/** Something that is loaded when it is first wanted. */
export function later<T>(load: () => Promise<T>): () => Promise<T> {
	const loaded = async (): Promise<T> => {
		try {
			return await load();
		} catch (cause) {
			throw new NotLoadedError(NOT_LOADED, { cause });
		}
	};
	waiting.push(loaded);
	return loaded;
}

/** Load all of them. A page that carries its recording has no such parts beside it, and no use for them. */
export async function preload(): Promise<void> {
	await Promise.allSettled(waiting.map((load) => load()));
}
