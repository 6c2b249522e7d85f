/**
 * Whether a key belongs to an input method, by which Japanese or Chinese words are composed: its Enter takes a word
 * and its Escape drops one, and neither is meant for the page. Safari says that the word is over before it tells of
 * the key that ended it; the key's code, 229, still says whose it was.
 */
export function isComposing(event: Pick<KeyboardEvent, "isComposing" | "keyCode">): boolean {
	return event.isComposing || event.keyCode === 229;
}
