import { expect, test } from "vitest";
import { forShadow } from "./shadow";
import { darkBy } from "./theme";

const body = (dataset: Record<string, string>, ...classes: string[]) => ({
	dataset: dataset as DOMStringMap,
	classList: { contains: (name: string) => classes.includes(name) } as DOMTokenList,
});

test.each([
	["Jupyter, light", body({ jpThemeLight: "true" }), false],
	["Jupyter, dark", body({ jpThemeLight: "false" }), true],
	["VS Code, dark", body({ vscodeThemeKind: "vscode-dark" }), true],
	["VS Code, light", body({ vscodeThemeKind: "vscode-light" }), false],
	["VS Code, high contrast", body({ vscodeThemeKind: "vscode-high-contrast" }), true],
	["VS Code, light and high contrast", body({ vscodeThemeKind: "vscode-high-contrast-light" }), false],
	["VS Code by its class, dark", body({}, "vscode-dark"), true],
	["VS Code by its class, light", body({}, "vscode-light"), false],
	["a page that does not say", body({}), null],
])("%s", (_name, of, dark) => {
	expect(darkBy(of)).toBe(dark);
});

test("what the page says of its root is said of the host of a shadow tree", () => {
	expect(forShadow(':root{--a:1}:root[data-theme="dark"]{--a:2}.b:root,.c{x:y}')).toBe(
		':host{--a:1}:host([data-theme="dark"]){--a:2}.b:host,.c{x:y}',
	);
});
