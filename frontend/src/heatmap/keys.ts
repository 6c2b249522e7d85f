/** Where a key takes the cursor: a cell, null to put it away, undefined when the key means nothing here. */
export function moved(
	key: string,
	from: { position: number; layer: number | null } | null,
	tokens: number,
	layers: number,
	page: number,
): { position: number; layer: number } | null | undefined {
	const steps: Record<string, [number, number]> = {
		ArrowLeft: [-1, 0],
		ArrowRight: [1, 0],
		ArrowUp: [0, 1],
		ArrowDown: [0, -1],
		PageUp: [-page, 0],
		PageDown: [page, 0],
		Home: [-tokens, 0],
		End: [tokens, 0],
	};
	if (key === "Escape") return from === null ? undefined : null;
	const step = steps[key];
	if (step === undefined) return undefined;
	const clamp = (value: number, most: number) => Math.max(0, Math.min(most, value));
	// The first key shows where the cursor is; it starts at the last token.
	if (from === null && step[0] !== -tokens) return { position: tokens - 1, layer: 0 };
	return {
		position: clamp((from?.position ?? 0) + step[0], tokens - 1),
		layer: clamp((from?.layer ?? 0) + step[1], layers - 1),
	};
}
