// Checks of JSON that comes from a file, put together like the types that they prove. A check gives back what it has
// proved and nothing else, or throws a sentence that names the field.
import { RecordingError } from "./error";

export type Check<T> = (value: unknown, where: string) => T;

function refuse(where: string, must: string): never {
	throw new RecordingError(`meta.json: ${where} must be ${must}.`);
}

export const text: Check<string> = (value, where) =>
	typeof value === "string" ? value : refuse(where, "a text");

export const truth: Check<boolean> = (value, where) =>
	typeof value === "boolean" ? value : refuse(where, "true or false");

export const number: Check<number> = (value, where) =>
	typeof value === "number" && Number.isFinite(value) ? value : refuse(where, "a number");

/** A whole number that is not negative, such as a position. */
export const whole: Check<number> = (value, where) =>
	Number.isSafeInteger(value) && (value as number) >= 0
		? (value as number)
		: refuse(where, "a whole number that is not negative");

/** One that a page counts up to. */
export function wholeUpTo(most: number): Check<number> {
	return (value, where) => {
		const found = whole(value, where);
		return found <= most ? found : refuse(where, `at most ${most} to be shown in a page`);
	};
}

export const someText: Check<string> = (value, where) =>
	text(value, where) === "" ? refuse(where, "a text that is not empty") : (value as string);

export function orNull<T>(check: Check<T>): Check<T | null> {
	return (value, where) => (value === null ? null : check(value, where));
}

/** A field that older files do not have. */
export function otherwise<T>(missing: T, check: Check<T>): Check<T> {
	return (value, where) => (value === undefined ? missing : check(value, where));
}

export function oneOf<const T extends string>(...choices: readonly T[]): Check<T> {
	return (value, where) =>
		choices.find((choice) => choice === value) ?? refuse(where, `one of ${choices.join(", ")}`);
}

/** `most`: of what a page lays out, draws or compares one by one it takes so many. */
export function list<T>(check: Check<T>, most = Number.POSITIVE_INFINITY): Check<T[]> {
	return (value, where) => {
		if (!Array.isArray(value)) return refuse(where, "a list");
		if (value.length > most) refuse(where, `a list of at most ${most} to be shown in a page`);
		return value.map((one, index) => check(one, `${where}[${index}]`));
	};
}

export function pair<T>(check: Check<T>): Check<[T, T]> {
	return (value, where) =>
		Array.isArray(value) && value.length === 2
			? [check(value[0], `${where}[0]`), check(value[1], `${where}[1]`)]
			: refuse(where, "a list of two");
}

/** A map with these fields. Others may stand beside them and are left out. */
export function fields<T extends object>(checks: { [name in keyof T]-?: Check<T[name]> }): Check<T> {
	const names = Object.keys(checks) as (keyof T & string)[];
	return (value, where) => {
		if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(where, "a map");
		const found = value as Record<string, unknown>;
		return Object.fromEntries(
			names.map((name) => [name, checks[name](own(found, name), where === "" ? name : `${where}.${name}`)]),
		) as T;
	};
}

/** A map from any names to values of one kind. */
export function mapOf<T>(check: Check<T>): Check<{ [name: string]: T }> {
	return (value, where) => {
		if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(where, "a map");
		// `fromEntries` makes even a field of the name __proto__ a field like any other.
		return Object.fromEntries(
			Object.entries(value as object).map(([name, one]) => [name, check(one, `${where}.${name}`)]),
		);
	};
}

function own(found: Record<string, unknown>, name: string): unknown {
	return Object.hasOwn(found, name) ? found[name] : undefined;
}

/** What may be null or missing, which is the same. */
export function maybe<T>(check: Check<T>): Check<T | null> {
	return otherwise<T | null>(null, orNull(check));
}
