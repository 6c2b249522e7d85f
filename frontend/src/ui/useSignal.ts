import { useSyncExternalStore } from "react";
import type { Signal } from "../store/signal";

/** Render again, at most once per frame, when the thing behind a signal changed. */
export function useSignal(signal: Signal): number {
	return useSyncExternalStore(signal.subscribe, signal.getVersion);
}
