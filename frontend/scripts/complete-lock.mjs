// Completes package-lock.json with the platform builds that the registry in use did not hold. Without them
// `npm ci` refuses the lock on every machine; with them it takes the build of its own platform and skips the
// rest. The version is the one the parent package asks for; there is no integrity hash to give.
// Run by `npm run lock` after `npm install`.
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(file, "utf8"));
const SYSTEMS = [
	"android",
	"darwin",
	"linux",
	"win32",
	"freebsd",
	"openbsd",
	"netbsd",
	"openharmony",
	"sunos",
	"aix",
];
const CHIPS = [
	"x64",
	"arm64",
	"arm",
	"ia32",
	"riscv64",
	"ppc64",
	"ppc64le",
	"s390x",
	"loong64",
	"mips64el",
	"wasm32",
];
const added = [];

for (const [path, entry] of Object.entries(lock.packages)) {
	for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
		const at = `node_modules/${name}`;
		if (lock.packages[at] || lock.packages[`${path}/${at}`]) continue;
		const words = name.split(/[-/]/);
		const os = name === "fsevents" ? ["darwin"] : SYSTEMS.filter((one) => words.includes(one));
		const cpu = CHIPS.filter((one) => words.includes(one));
		if (os.length === 0 && cpu.length === 0)
			throw new Error(`${name} names no platform; look at it by hand.`);
		lock.packages[at] = {
			version: range.replace(/^[~^]/, ""),
			...(cpu.length > 0 && { cpu }),
			...(entry.dev && { dev: true }),
			...(entry.license && { license: entry.license }),
			optional: true,
			...(os.length > 0 && { os }),
		};
		added.push(name);
	}
}
const [root, ...rest] = Object.keys(lock.packages);
lock.packages = Object.fromEntries([root, ...rest.sort()].map((path) => [path, lock.packages[path]]));
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${added.length} platform builds added to the lock.`);
