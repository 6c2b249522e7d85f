/** Styles of a page for a shadow tree: what is said of the root is said of its host. */
export function forShadow(css: string): string {
	return css.replace(/:root(\[[^\]]*\])/g, ":host($1)").replaceAll(":root", ":host");
}
