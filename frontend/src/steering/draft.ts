// What a person has typed for a slider to be made, and the request that it comes to.
import type { BuildRequest } from "./api";

export interface Draft {
	label: string;
	/** Two system prompts, or two lists of example texts. */
	from: "prompts" | "examples";
	prompts: { positive: string; negative: string };
	examples: { positive: string; negative: string };
}

export const EMPTY: Draft = {
	label: "",
	from: "prompts",
	prompts: { positive: "", negative: "" },
	examples: { positive: "", negative: "" },
};

/** What to send, or null while something is missing. Examples are lines; a blank line is none. */
export function requestOf(draft: Draft, adapter: string | null): BuildRequest | null {
	const label = draft.label.trim();
	const { positive, negative } = draft[draft.from];
	if (label === "" || positive.trim() === "" || negative.trim() === "") return null;
	if (draft.from === "prompts") {
		return { label, positive: positive.trim(), negative: negative.trim(), adapter };
	}
	return { label, positive: lines(positive), negative: lines(negative), adapter };
}

function lines(text: string): string[] {
	return text
		.split("\n")
		.map((line) => line.trim())
		.filter((line) => line !== "");
}
