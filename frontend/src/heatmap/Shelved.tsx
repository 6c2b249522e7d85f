import { useSyncExternalStore } from "react";
import type { Strip } from "../store/strip";

/** That numbers of the map are on their way from disk. */
export function Shelved({ strip }: { strip: Strip }) {
	const shelved = useSyncExternalStore(
		(listener) => strip.subscribe(listener),
		() => strip.shelved,
	);
	if (!shelved) return null;
	return (
		<p className="heatmap-empty" role="status" data-testid="heatmap-shelved">
			Fetching the numbers of this reply
		</p>
	);
}
