// Components that are loaded when they are first rendered, inside of a `Suspense`.
import { type ComponentType, lazy } from "react";
import { later, NOT_LOADED } from "./later";

export function lazily<P extends object>(load: () => Promise<ComponentType<P>>) {
	const loaded = later(load);
	const component = (): Promise<ComponentType<P>> => loaded().catch(() => NotLoaded);
	return lazy(async () => ({ default: await component() }));
}

/** In place of a component that did not come. */
function NotLoaded() {
	return (
		<div className="error-banner" role="alert" data-testid="not-loaded">
			<span>{NOT_LOADED}</span>
		</div>
	);
}
