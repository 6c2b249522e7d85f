// A page that opens from disk and shows one recording: this page's own script and styles, and the recording in base64.
// It carries a policy that lets it load and send nothing, so that it can be looked at without trusting who made it more
// than any file.
//
// The script is one file and so is the style sheet, and both are taken from the page that runs: from their addresses, or,
// in a page that was itself saved like this, from its own text.
import { nextTask } from "./breath";

const POLICY =
	"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";
/** Bytes that are encoded at once: a multiple of 3. */
const SLICE = 3 * 2 ** 17;

export async function pageWith(recording: Uint8Array, title: string, page: Document): Promise<Blob> {
	const [script, styles, icon] = await Promise.all([scriptOf(page), stylesOf(page), iconOf(page)]);
	return new Blob(
		[
			'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n',
			`<meta http-equiv="Content-Security-Policy" content="${POLICY}" />\n`,
			'<meta name="viewport" content="width=device-width, initial-scale=1" />\n',
			'<meta name="color-scheme" content="light dark" />\n',
			`<link rel="icon" href="${attribute(icon)}" />\n`,
			`<title>${text(title)}</title>\n`,
			"<style>",
			inside(styles, "style"),
			'</style>\n</head>\n<body>\n<div id="root"></div>\n<noscript>Steersight needs JavaScript.</noscript>\n',
			'<script type="application/octet-stream" id="recording">',
			...(await base64(recording)),
			'</script>\n<script type="module">',
			inside(script, "script"),
			"</script>\n</body>\n</html>\n",
		],
		{ type: "text/html" },
	);
}

export async function base64(bytes: Uint8Array): Promise<string[]> {
	const pieces: string[] = [];
	for (let at = 0; at < bytes.length; at += SLICE) {
		let binary = "";
		for (let from = at; from < Math.min(at + SLICE, bytes.length); from += 2 ** 13) {
			const to = Math.min(from + 2 ** 13, at + SLICE, bytes.length);
			binary += String.fromCharCode(...bytes.subarray(from, to));
		}
		pieces.push(btoa(binary));
		await nextTask();
	}
	return pieces;
}

/**
 * A script's or a style sheet's text as it may stand inside its element. What would end the element, or begin another one
 * in it, stands in literals only, where an escape means the same.
 */
export function inside(source: string, element: "script" | "style"): string {
	return element === "script"
		? source.replace(/<(\/?script)/gi, "\\x3c$1")
		: source.replace(/<(\/style)/gi, "\\3c $1");
}

async function scriptOf(page: Document): Promise<string> {
	const scripts = [...page.querySelectorAll<HTMLScriptElement>('script[type="module"]')];
	const [script] = scripts;
	if (script === undefined || scripts.length !== 1) {
		throw new Error("This page is not the built one, so it cannot be saved.");
	}
	// In a saved page this has been escaped already, and stays as it is.
	return script.src === "" ? (script.textContent ?? "") : fetched(script.src);
}

async function stylesOf(page: Document): Promise<string> {
	const sheets = [
		...page.querySelectorAll<HTMLLinkElement | HTMLStyleElement>('link[rel="stylesheet"], style'),
	];
	const texts = sheets.map((sheet) => ("href" in sheet ? fetched(sheet.href) : (sheet.textContent ?? "")));
	return (await Promise.all(texts)).join("\n");
}

async function iconOf(page: Document): Promise<string> {
	const href = page.querySelector<HTMLLinkElement>('link[rel="icon"]')?.href ?? "";
	if (href === "" || href.startsWith("data:")) return href || "data:,";
	return `data:image/svg+xml,${encodeURIComponent(await fetched(href))}`;
}

async function fetched(address: string): Promise<string> {
	let answer: Response;
	try {
		answer = await fetch(address);
	} catch {
		throw new Error("The page's own files cannot be fetched: the server cannot be reached.");
	}
	if (!answer.ok) throw new Error(`The page's own files cannot be fetched (${answer.status}).`);
	return answer.text();
}

function text(value: string): string {
	return value.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function attribute(value: string): string {
	return text(value).replaceAll('"', "&quot;");
}
