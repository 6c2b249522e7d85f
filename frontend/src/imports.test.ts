// The order of the front end's files, as its imports are: no circle, and a token's way in one direction. Sources are
// read as text.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = dirname(fileURLToPath(import.meta.url));
const sources = readdirSync(root, { recursive: true, encoding: "utf8" }).filter(
	(name) => /\.tsx?$/.test(name) && !/\.(test|bench)\.tsx?$/.test(name) && !name.startsWith("testing/"),
);

/** Per file the files of this page that it imports, types included. */
const imports = new Map(
	sources.map((name) => {
		const text = readFileSync(join(root, name), "utf8");
		const found = [...text.matchAll(/from "(\.[^"]+)"/g)].map(([, path]) => {
			const target = relative(root, join(root, dirname(name), path!));
			return sources.find((one) => one === `${target}.ts` || one === `${target}.tsx`);
		});
		return [name, found.filter((one) => one !== undefined)] as const;
	}),
);

test("no file imports itself by way of others", () => {
	const done = new Set<string>();
	const circles: string[] = [];
	const visit = (name: string, way: readonly string[]) => {
		if (way.includes(name)) circles.push([...way.slice(way.indexOf(name)), name].join(" > "));
		if (way.includes(name) || done.has(name)) return;
		for (const next of imports.get(name)!) visit(next, [...way, name]);
		done.add(name);
	};
	for (const name of sources) visit(name, []);
	expect(circles).toEqual([]);
});

test.each([
	["protocol", []],
	["connection", ["protocol"]],
	["store", ["protocol"]],
])("%s imports of other folders only %j", (folder, allowed) => {
	const strange = sources
		.filter((name) => name.startsWith(`${folder}/`))
		.flatMap((name) => imports.get(name)!.map((target) => [name, target] as const))
		.filter(([, target]) => ![folder, ...allowed].includes(target.split("/")[0]!));
	expect(strange).toEqual([]);
});

test("what is not seen imports nothing that is", () => {
	const strange = sources
		.filter((name) => name.endsWith(".ts"))
		.flatMap((name) => imports.get(name)!.filter((target) => target.endsWith(".tsx")));
	expect(strange).toEqual([]);
});
