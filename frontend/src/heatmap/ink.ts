// The page's colours as the canvas needs them. CSS decides (light, dark, contrast); a probe element resolves
// each variable to a plain colour, because a canvas understands neither var() nor light-dark().
import type { Ink } from "./draw";

const NAMES = ["ground", "panel", "text", "muted", "edge", "signal", "accent", "hatch"] as const;

export function readInk(host: HTMLElement): Ink {
	const probe = document.createElement("span");
	probe.hidden = true;
	host.append(probe);
	const colours: Record<string, string> = {};
	for (const name of NAMES) {
		probe.style.color = `var(--${name})`;
		colours[name] = getComputedStyle(probe).color;
	}
	probe.remove();
	const style = getComputedStyle(host);
	const { ground, panel, text, muted, edge, signal, accent, hatch } = colours as Record<
		(typeof NAMES)[number],
		string
	>;
	return {
		ground,
		panel,
		text,
		muted,
		edge,
		signal,
		accent,
		hatch: hatching(hatch) ?? ground,
		font: style.fontFamily,
		mono: style.getPropertyValue("--mono") || "monospace",
	};
}

/** Diagonal lines, tileable: nothing is known here. */
function hatching(colour: string): CanvasPattern | null {
	const size = 8;
	const tile = document.createElement("canvas");
	tile.width = size;
	tile.height = size;
	const context = tile.getContext("2d");
	if (context === null) return null;
	context.strokeStyle = colour;
	context.lineWidth = 1.25;
	context.beginPath();
	for (const shift of [-size, 0, size]) {
		context.moveTo(shift - 1, size + 1);
		context.lineTo(shift + size + 1, -1);
	}
	context.stroke();
	return context.createPattern(tile, "repeat");
}
