// What can be typed into the message box to act on the sliders. A command is answered in the page and is no part
// of the conversation. Only these words are commands: any other text, also one that begins with a slash, is sent.
import type { VectorInfo } from "../protocol/types.gen";
import {
	boundsOf,
	normal,
	OPERATOR_WORDS,
	type Operator,
	settingProblem,
	settingText,
	withinBounds,
} from "../steering/setting";
import type { Steering } from "../steering/steering";

export type Command =
	| { name: "vectors" }
	/** No strength is the suggested one, no operator the vector's own. */
	| { name: "steer"; vector: string; strength: string; operator: Operator | null }
	| { name: "active" }
	| { name: "clear" };

export function parseCommand(text: string): Command | null {
	const [word = "", ...rest] = text.trim().split(/\s+/);
	switch (word.toLowerCase()) {
		case "/features":
		case "/vectors":
			return rest.length === 0 ? { name: "vectors" } : null;
		case "/steer":
			return steerCommand(rest);
		case "/active":
			return rest.length === 0 ? { name: "active" } : null;
		case "/clear":
			return rest.length === 0 ? { name: "clear" } : null;
	}
	return null;
}

/** NAME, NAME STRENGTH or NAME STRENGTH OPERATOR; a name may have several words. */
function steerCommand(words: string[]): Command {
	const last = words.at(-1)?.toLowerCase() ?? "";
	const operator = words.length > 2 && Object.hasOwn(OPERATOR_WORDS, last) ? (last as Operator) : null;
	const rest = operator === null ? words : words.slice(0, -1);
	const numbered = rest.length > 0 && rest.at(-1) !== "" && Number.isFinite(Number(rest.at(-1)));
	return {
		name: "steer",
		vector: (numbered ? rest.slice(0, -1) : rest).join(" "),
		strength: numbered ? rest.at(-1)! : "",
		operator,
	};
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
	if (command.vector === "") return "Write /steer NAME STRENGTH, such as /steer joy 0.2.";
	const found = named(vectors, command.vector);
	if (found.length === 0) return `There is no vector ${command.vector}. /vectors lists them.`;
	if (found.length > 1) return `Which one: ${found.map(({ id }) => id).join(", ")}?`;
	const [vector] = found as [VectorInfo];
	const { operator } = command;
	if (operator !== null && vector.operator === null) {
		return `${vector.label} is a function of this server and does what it does: it has no operators.`;
	}
	if (operator !== null && !vector.operators.includes(operator)) {
		return `${vector.label} cannot do ${operator}; it can do ${vector.operators.join(", ")}.`;
	}
	const before = steering.setting(vector.id);
	const setting = operator === null ? before : normal(vector, { ...before, operator });
	if (operator === "clamp" && settingProblem(vector, setting, Number.POSITIVE_INFINITY) !== null) {
		return `A clamp needs bounds. Set them at the slider of ${vector.label}.`;
	}
	const bounds = boundsOf(vector, setting);
	const strength = command.strength === "" ? (bounds.suggested ?? 1) : Number(command.strength);
	const value = withinBounds(bounds, strength);
	if (!steering.act(vector.id, setting, value)) return steering.problem ?? "";
	const beyond = strength < bounds.lo || strength > bounds.hi;
	const how = settingText(setting);
	return `${vector.label} is at ${value}${beyond ? ", the end of its slider" : ""}${how === "" ? "" : ` (${how})`}.`;
}

/**
 * A vector by its id or label; features by layer and number, such as 28:8401; else all whose id or label begins
 * so.
 */
function named(vectors: readonly VectorInfo[], name: string): VectorInfo[] {
	const wanted = name.toLowerCase();
	const names = (vector: VectorInfo) => [vector.id.toLowerCase(), vector.label.toLowerCase()];
	const exact = vectors.filter((vector) => names(vector).includes(wanted));
	if (exact.length > 0) return exact.slice(0, 1);
	const [, layer, feature] = /^(\d+):(\d+)$/.exec(wanted) ?? [];
	if (feature !== undefined) {
		return vectors.filter(
			(vector) => `${vector.layers}` === `${Number(layer)}` && vector.feature === Number(feature),
		);
	}
	return vectors.filter((vector) => names(vector).some((one) => one.startsWith(wanted)));
}

function line(vector: VectorInfo, steering: Steering): string {
	const { lo, hi } = boundsOf(vector, steering.setting(vector.id));
	const value = steering.get(vector.id);
	const how = settingText(steering.setting(vector.id));
	const about = value === 0 ? vector.description : how;
	return `${vector.id} \u00b7 ${value} (${lo} to ${hi})${about === "" ? "" : ` \u00b7 ${about}`}`;
}
