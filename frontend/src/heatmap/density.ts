// How many device pixels a CSS pixel has, which changes with the browser's zoom and with the screen that the
// window is moved to. A media query knows one density only, so each change needs a query for the new one.

/** Hear of every change. Returns what ends it. */
export function onDensity(tell: () => void): () => void {
	let stop = () => {};
	const listen = () => {
		const query = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
		const changed = () => {
			stop();
			listen();
			tell();
		};
		query.addEventListener("change", changed);
		stop = () => query.removeEventListener("change", changed);
	};
	listen();
	return () => stop();
}
