// Turns, and what they are as messages: of the page's turns for the next prompt, and of a prompt back into turns
// for a page that did not ask the question itself.
import type { ChatMessage, Prompt } from "../protocol/types.gen";
import type { Run } from "../store/run";
import { type Parted, parted } from "../store/thought";

export interface Turn {
	readonly key: string;
	/** Empty until it is known, where somebody else asked. */
	readonly user: string;
	readonly run: Run;
	/** Runs that wrote the beginning of the reply, before it was written on. */
	readonly before: readonly Run[];
	/** Asked elsewhere: putting it away here does not end it. */
	readonly watched: boolean;
}

/** What the runs of one reply wrote, one after the other. */
export function textOf(runs: readonly Run[]): string {
	return runs.map((run) => run.written()).join("");
}

/** What the runs of one reply thought and answered. */
export function partsOf(runs: readonly Run[]): Parted {
	const marks = runs.map((run) => run.marks).find((one) => one !== null);
	return parted(textOf(runs), marks ?? null);
}

export function replyText(turn: Turn): string {
	return textOf([...turn.before, turn.run]);
}

export function conversation(
	history: readonly Turn[],
	user: string,
	system: string,
	beginning: string,
): ChatMessage[] {
	const messages: ChatMessage[] = [];
	if (system.trim() !== "") messages.push({ role: "system", content: system });
	for (const turn of history) {
		const reply = replyText(turn);
		// A question whose reply failed before its first word was not answered: the model need not know of it.
		if (reply === "" && turn.run.delivery.phase !== "done") continue;
		messages.push({ role: "user", content: turn.user });
		const { thought, answer } = partsOf([...turn.before, turn.run]);
		messages.push({ role: "assistant", content: answer, ...(thought === null ? {} : { thought }) });
	}
	messages.push({ role: "user", content: user });
	if (beginning !== "") messages.push({ role: "assistant", content: beginning });
	return messages;
}

export interface Read {
	/** Earlier turns, as texts. */
	history: { user: string; reply: string }[];
	user: string;
	/** What the reply began with, where it was written on. */
	beginning: string;
}

/**
 * The conversation that a prompt was made of. A message's span holds the chat template's tokens around it too:
 * special tokens divide it, the message is the last part that has any text, and a role's name on a line of its
 * own before it is the template's. A text that is `continued` was made without a template: it is as it was written.
 */
export function readPrompt(prompt: Prompt, special: ReadonlySet<number>, continued = false): Read {
	if (continued) return readText(prompt, special);
	const said = prompt.spans.map(({ role, start, end }) => ({
		role,
		text: message(prompt, special, start, end),
	}));
	const covered = prompt.spans.at(-1)?.end ?? prompt.ids.length;
	const read = turnsOf(said);
	// An unfinished message has no end of the template, so no span: it is what stands after the last one.
	if (covered < prompt.ids.length) {
		const rest = message(prompt, special, covered, prompt.ids.length, false);
		if (rest !== "") read.beginning = rest;
	}
	return read;
}

function readText({ ids, texts, spans }: Prompt, special: ReadonlySet<number>): Read {
	const whole = [{ role: "user", start: 0, end: ids.length }];
	const said = (spans.length === 0 ? whole : spans).map(({ role, start, end }) => {
		const pieces = texts.slice(start, end).filter((_, index) => !special.has(ids[start + index]!));
		return { role, text: pieces.join("") };
	});
	// Line breaks between messages are where the messages meet, and belong to none.
	for (const one of said) if (one.role !== "assistant") one.text = one.text.replace(/^\n|\n$/g, "");
	return turnsOf(said);
}

function turnsOf(said: readonly { role: string; text: string }[]): Read {
	const read: Read = { history: [], user: "", beginning: "" };
	for (const { role, text } of said) {
		if (role === "user") {
			if (read.user !== "") read.history.push({ user: read.user, reply: read.beginning });
			read.user = text;
			read.beginning = "";
		} else if (role === "assistant") {
			read.beginning = text;
		}
	}
	return read;
}

const ROLE_LINE = /^\s*(system|user|assistant|model)[ \t]*\n/;

function message(
	{ ids, texts }: Prompt,
	special: ReadonlySet<number>,
	start: number,
	end: number,
	trim = true,
): string {
	const parts = [""];
	for (let position = start; position < end; position++) {
		if (special.has(ids[position]!)) parts.push("");
		else parts[parts.length - 1] += texts[position] ?? "";
	}
	const last = parts.filter((part) => part.trim() !== "").at(-1) ?? "";
	const text = last.replace(ROLE_LINE, "");
	return trim ? text.trim() : text;
}
