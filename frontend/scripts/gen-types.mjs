// Writes src/protocol/types.gen.ts from src/protocol/wire.schema.json, so that the page and the server
// cannot disagree about a frame without the compiler noticing. With --check it writes nothing and fails
// when the file is not what the schema gives.
import { readFileSync, writeFileSync } from "node:fs";
import { compile } from "json-schema-to-typescript";

const schemaFile = new URL("../src/protocol/wire.schema.json", import.meta.url);
const typesFile = new URL("../src/protocol/types.gen.ts", import.meta.url);

const schema = JSON.parse(readFileSync(schemaFile, "utf8"));
const generated = await generate(schema);

if (process.argv.includes("--check")) {
	let present = "";
	try {
		present = readFileSync(typesFile, "utf8");
	} catch {
		// A missing file differs from the generated one, which is what the next line reports.
	}
	if (present !== generated) {
		console.error(
			"src/protocol/types.gen.ts is not what src/protocol/wire.schema.json gives. Run `npm run gen` and commit the result.",
		);
		process.exit(1);
	}
} else {
	writeFileSync(typesFile, generated);
}

async function generate(source) {
	const wire = structuredClone(source);
	const fromServer = reachable(wire, wire.properties.server);
	const fromClient = reachable(wire, wire.properties.client);
	for (const [name, definition] of Object.entries(wire.$defs)) {
		if (definition.properties === undefined) continue;
		// The server sends every field, null or not. A client may leave out what has a default, except
		// the type that tells frames apart.
		if (fromServer.has(name) && !fromClient.has(name)) {
			definition.required = Object.keys(definition.properties);
		} else if (definition.properties.type?.const !== undefined) {
			definition.required = [...new Set(["type", ...(definition.required ?? [])])];
		}
		for (const property of Object.values(definition.properties)) tidy(property);
	}
	for (const [side, property] of Object.entries(wire.properties)) {
		delete property.discriminator;
		property.title = `${side} frame`;
	}
	const types = await compile(wire, "Wire", {
		additionalProperties: false,
		bannerComment:
			"// Generated from wire.schema.json by `npm run gen`. Do not edit: change the server's models and run it again.",
		style: { useTabs: true, printWidth: 110 },
		unreachableDefinitions: true,
	});
	// The compiler's notes on where a type came from say nothing that the name does not.
	const quiet = types.replace(
		/( \*\n)? \* This interface was referenced by `.*`'s JSON-Schema\n \* via .*\n/g,
		"",
	);
	return `${quiet.replace(/\/\*\*\n \*\/\n/g, "")}${constants(source)}`;
}

/** Names of the definitions that a schema refers to, directly or not. */
function reachable(wire, node, found = new Set()) {
	if (node === null || typeof node !== "object") return found;
	const name = typeof node.$ref === "string" ? node.$ref.split("/").at(-1) : undefined;
	if (name !== undefined && !found.has(name)) {
		found.add(name);
		reachable(wire, wire.$defs[name], found);
	}
	for (const child of Object.values(node)) reachable(wire, child, found);
	return found;
}

/**
 * Take away what would make odd types: inline titles become one alias each, length limits become unions of
 * tuples, a default beside a reference becomes a copy of the type, and key patterns become comments.
 */
function tidy(node) {
	if (node === null || typeof node !== "object") return;
	delete node.title;
	if (node.$ref !== undefined) delete node.default;
	if (node.patternProperties !== undefined) {
		node.additionalProperties = Object.values(node.patternProperties)[0];
		delete node.patternProperties;
	}
	if (node.minItems !== node.maxItems) {
		delete node.minItems;
		delete node.maxItems;
	}
	for (const child of Object.values(node)) tidy(child);
}

/** What the schema says beside types: names, close codes, and each sampling setting's limits. */
function constants(wire) {
	const sampling = {};
	for (const [name, property] of Object.entries(wire.$defs.Sampling.properties)) {
		const number = property.anyOf?.find((option) => option.type !== "null") ?? property;
		if (number.type !== "integer" && number.type !== "number") continue;
		sampling[name] = {
			default: property.default,
			integer: number.type === "integer",
			min: number.minimum ?? number.exclusiveMinimum,
			exclusiveMin: number.exclusiveMinimum !== undefined,
			// JavaScript sends integers exactly only up to this.
			max: Math.min(number.maximum, Number.MAX_SAFE_INTEGER),
		};
	}
	const json = (value) => JSON.stringify(value, null, "\t");
	return `
export const SUBPROTOCOL = ${json(wire["x-subprotocol"])};
export const PROTOCOL_VERSION = ${json(wire["x-protocol"])};
export const CLOSE_CODES = ${json(wire["x-close-codes"])} as const;
export const SERVER_TYPES: readonly string[] = ${json(Object.keys(wire.properties.server.discriminator.mapping))};
/** Limits of the numbers in \`Sampling\`. */
export const SAMPLING_NUMBERS = ${json(sampling)} as const;
`;
}
