// A page that opens from disk and shows one recording: the page as one script, its styles, and the recording in base64.
// It carries a policy that lets it run this script and load and send nothing, so that it can be looked at without trusting
// who made it more than any file.
//
// The served page is in several scripts, of which no file from disk may load another. It is built once more as one, in
// a folder beside it (`vite.config.ts`), and that is taken; a page that was itself saved like this takes its own text.
import { nextTask } from "./breath";

const ALONE = "alone/index.html";
/** Bytes that are encoded at once: a multiple of 3. */
const SLICE = 3 * 2 ** 17;

export async function pageWith(recording: Uint8Array, title: string, page: Document): Promise<Blob> {
	const { script, styles, icon } = await partsOf(page);
	const policy = `default-src 'none'; script-src ${await allowed(script)}; style-src ${await allowed(styles)}; img-src data:; base-uri 'none'; form-action 'none'`;
	// Blobs of their own: one of all texts at once would be encoded in one task.
	const carried: Blob[] = [];
	for await (const piece of base64(recording)) carried.push(new Blob([piece]));
	return new Blob(
		[
			'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n',
			`<meta http-equiv="Content-Security-Policy" content="${policy}" />\n`,
			'<meta name="viewport" content="width=device-width, initial-scale=1" />\n',
			'<meta name="color-scheme" content="light dark" />\n',
			`<link rel="icon" type="image/svg+xml" href="${attribute(icon)}" />\n`,
			`<title>${text(title)}</title>\n<style>${styles}</style>\n</head>\n<body>\n<div id="root"></div>\n`,
			"<noscript>Steersight needs JavaScript.</noscript>\n",
			'<script type="application/octet-stream" id="recording">',
			...carried,
			`</script>\n<script type="module">${script}</script>\n</body>\n</html>\n`,
		],
		{ type: "text/html" },
	);
}

/** The bytes as base64, in slices with time for the page between them. */
export async function* base64(bytes: Uint8Array): AsyncGenerator<string> {
	for (let at = 0; at < bytes.length; at += SLICE) {
		let binary = "";
		for (let from = at; from < Math.min(at + SLICE, bytes.length); from += 2 ** 13) {
			const to = Math.min(from + 2 ** 13, at + SLICE, bytes.length);
			binary += String.fromCharCode(...bytes.subarray(from, to));
		}
		yield btoa(binary);
		await nextTask();
	}
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

interface Parts {
	/** As they may stand in their elements. */
	script: string;
	styles: string;
	/** As an address. */
	icon: string;
}

async function partsOf(page: Document): Promise<Parts> {
	const own = page.querySelector<HTMLScriptElement>('script[type="module"]');
	if (own !== null && own.src === "") {
		const sheets = [...page.querySelectorAll("style")].map(({ textContent }) => textContent ?? "");
		const icon = page.querySelector<HTMLLinkElement>('link[rel="icon"]')?.href ?? "data:,";
		return { script: own.textContent ?? "", styles: sheets.join("\n"), icon };
	}
	const address = new URL(ALONE, page.baseURI);
	const alone = new DOMParser().parseFromString(await fetched(address), "text/html");
	const at = (selector: string, name: "src" | "href") =>
		[...alone.querySelectorAll(selector)].map((one) => new URL(one.getAttribute(name) ?? "", address));
	const scripts = at('script[type="module"]', "src");
	const [script] = scripts;
	if (script === undefined || scripts.length !== 1) {
		throw new Error("This server's page is not built as one script, so it cannot be saved.");
	}
	const sheets = await Promise.all(at('link[rel="stylesheet"]', "href").map(fetched));
	const [icon] = at('link[rel="icon"]', "href");
	return {
		script: inside(await fetched(script), "script"),
		styles: inside(sheets.join("\n"), "style"),
		icon: icon === undefined ? "data:," : `data:image/svg+xml,${encodeURIComponent(await fetched(icon))}`,
	};
}

/** What a policy calls this text. Browsers make no hashes for a page that came over a network in the clear. */
async function allowed(source: string): Promise<string> {
	if (globalThis.crypto?.subtle === undefined) return "'unsafe-inline'";
	const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(source));
	return `'sha256-${btoa(String.fromCharCode(...new Uint8Array(hash)))}'`;
}

async function fetched(address: URL): Promise<string> {
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
