// Whether the notebook around a widget is light or dark: as Jupyter says it, as VS Code says it, or else as the system
// would have it.

const DARK = "(prefers-color-scheme: dark)";

/** What is known of a page's theme; null where it says nothing. */
export function darkBy(body: Pick<HTMLElement, "dataset" | "classList">): boolean | null {
	const { jpThemeLight, vscodeThemeKind } = body.dataset;
	if (jpThemeLight !== undefined) return jpThemeLight === "false";
	if (vscodeThemeKind !== undefined) return /dark|high-contrast$/.test(vscodeThemeKind);
	if (body.classList.contains("vscode-dark")) return true;
	return body.classList.contains("vscode-light") ? false : null;
}

/** Follow the theme; returns how to stop. `tell` is called at once and with every change. */
export function followTheme(tell: (dark: boolean) => void): () => void {
	const query = matchMedia(DARK);
	const look = () => tell(darkBy(document.body) ?? query.matches);
	const watcher = new MutationObserver(look);
	watcher.observe(document.body, {
		attributes: true,
		attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind", "class"],
	});
	query.addEventListener("change", look);
	look();
	return () => {
		watcher.disconnect();
		query.removeEventListener("change", look);
	};
}
