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
		cached: dots(hatch) ?? ground,
		font: style.fontFamily,
		mono: style.getPropertyValue("--mono") || "monospace",
	};
}

/** Diagonal lines: nothing is known here. */
function hatching(colour: string): CanvasPattern | null {
	return tiled(8, (context, size) => {
		context.strokeStyle = colour;
		context.lineWidth = 1.25;
		context.beginPath();
		for (const shift of [-size, 0, size]) {
			context.moveTo(shift - 1, size + 1);
			context.lineTo(shift + size + 1, -1);
		}
		context.stroke();
	});
}

/** Dots: nothing was computed here. */
function dots(colour: string): CanvasPattern | null {
	return tiled(6, (context, size) => {
		context.fillStyle = colour;
		context.fillRect(0, 0, 2, 2);
		context.fillRect(size / 2, size / 2, 2, 2);
	});
}

function tiled(
	size: number,
	draw: (context: CanvasRenderingContext2D, size: number) => void,
): CanvasPattern | null {
	const tile = document.createElement("canvas");
	tile.width = size;
	tile.height = size;
	const context = tile.getContext("2d");
	if (context === null) return null;
	draw(context, size);
	return context.createPattern(tile, "repeat");
}
