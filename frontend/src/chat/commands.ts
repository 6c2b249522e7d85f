// What can be typed into the message box to act on the sliders. A command is answered in the page and is no part
// of the conversation. Only these words are commands: any other text, also one that begins with a slash, is sent.
import type { VectorInfo } from "../protocol/types.gen";
import { boundsOf, settingText, withinBounds } from "../steering/setting";
import type { Steering } from "../steering/steering";

export type Command =
	| { name: "vectors" }
	| { name: "steer"; vector: string; strength: string }
	| { name: "active" }
	| { name: "clear" };

export function parseCommand(text: string): Command | null {
	const [word = "", ...rest] = text.trim().split(/\s+/);
	switch (word.toLowerCase()) {
		case "/features":
		case "/vectors":
			return rest.length === 0 ? { name: "vectors" } : null;
		case "/steer":
			return { name: "steer", vector: rest.slice(0, -1).join(" "), strength: rest.at(-1) ?? "" };
		case "/active":
			return rest.length === 0 ? { name: "active" } : null;
		case "/clear":
			return rest.length === 0 ? { name: "clear" } : null;
	}
	return null;
}

/** Do it, and say in a few lines what is so now. */
export function runCommand(command: Command, vectors: readonly VectorInfo[], steering: Steering): string {
	switch (command.name) {
		case "vectors":
			if (vectors.length === 0) return "There are no vectors yet.";
			return vectors.map((vector) => line(vector, steering)).join("\n");
		case "active": {
			const active = vectors.filter(({ id }) => steering.get(id) !== 0);
			if (active.length === 0) return "Nothing is steered.";
			return active.map((vector) => line(vector, steering)).join("\n");
		}
		case "clear":
			steering.resetAll();
			return "All sliders are at 0.";
		case "steer":
			return steer(command, vectors, steering);
	}
}

function steer(
	command: Extract<Command, { name: "steer" }>,
	vectors: readonly VectorInfo[],
	steering: Steering,
): string {
	const strength = Number(command.strength);
	if (command.vector === "" || command.strength === "" || !Number.isFinite(strength)) {
		return "Write /steer NAME STRENGTH, such as /steer joy 0.2.";
	}
	const found = named(vectors, command.vector);
	if (found.length === 0) return `There is no vector ${command.vector}. /vectors lists them.`;
	if (found.length > 1) return `Which one: ${found.map(({ id }) => id).join(", ")}?`;
	const [vector] = found as [VectorInfo];
	const bounds = boundsOf(vector, steering.setting(vector.id));
	const value = withinBounds(bounds, strength);
	steering.set(vector.id, value);
	const end = value === strength || (strength >= bounds.lo && strength <= bounds.hi);
	return `${vector.label} is at ${value}${end ? "" : ", the end of its slider"}.`;
}

/** A vector by its id or label; else all whose id or label begins so. */
function named(vectors: readonly VectorInfo[], name: string): VectorInfo[] {
	const wanted = name.toLowerCase();
	const names = (vector: VectorInfo) => [vector.id.toLowerCase(), vector.label.toLowerCase()];
	const exact = vectors.filter((vector) => names(vector).includes(wanted));
	return exact.length > 0
		? exact.slice(0, 1)
		: vectors.filter((vector) => names(vector).some((one) => one.startsWith(wanted)));
}

function line(vector: VectorInfo, steering: Steering): string {
	const { lo, hi } = boundsOf(vector, steering.setting(vector.id));
	const value = steering.get(vector.id);
	const how = settingText(steering.setting(vector.id));
	const about = value === 0 ? vector.description : how;
	return `${vector.id} \u00b7 ${value} (${lo} to ${hi})${about === "" ? "" : ` \u00b7 ${about}`}`;
}
