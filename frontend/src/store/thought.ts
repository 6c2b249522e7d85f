// How the text of a reply is parted: the thought that a model writes before it answers, and the answer. Where the two
// meet, the server says by position; the marks around the thought are known from the model.
import type { ModelInfo } from "../protocol/types.gen";

export type Marks = NonNullable<ModelInfo["thoughts"]>;

export interface Parted {
	/** Without the marks around it; null where the reply has none. */
	thought: string | null;
	answer: string;
}

/** A reply's text with its marks, parted; `marks` is null where it has no thought. */
export function parted(text: string, marks: Marks | null): Parted {
	if (marks === null) return { thought: null, answer: text };
	const end = text.indexOf(marks.end);
	let thought = (end < 0 ? text : text.slice(0, end)).trimStart();
	// The chat template may have written the first mark.
	if (thought.startsWith(marks.start)) thought = thought.slice(marks.start.length);
	const answer = end < 0 ? "" : text.slice(end + marks.end.length).replace(/^\n+/, "");
	return { thought: thought.trim(), answer };
}
