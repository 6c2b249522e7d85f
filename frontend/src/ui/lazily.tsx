// Parts of the page that are loaded when they are first wanted. `preload` has them there before that, once the page has
// nothing else to do.
import { type ComponentType, lazy } from "react";

const waiting: (() => Promise<unknown>)[] = [];

/** A component that is loaded when it is first rendered, inside of a `Suspense`. */
export function lazily<P extends object>(load: () => Promise<ComponentType<P>>) {
	waiting.push(load);
	const loaded = (): Promise<ComponentType<P>> => load().catch(() => NotLoaded);
	return lazy(async () => ({ default: await loaded() }));
}

/** In place of a part that did not come, such as when the server has another version of the page by now. */
function NotLoaded() {
	return (
		<div className="error-banner" role="alert" data-testid="not-loaded">
			<span>This part of the page could not be loaded. Reload the page, and try again.</span>
		</div>
	);
}

/** Load all of them. A page that carries its recording has no such parts beside it, and no use for them. */
export async function preload(): Promise<void> {
	await Promise.allSettled(waiting.map((load) => load()));
}
