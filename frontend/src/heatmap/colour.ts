// Colour scales, made by formula and not copied from anywhere. Equal steps of the value are equal steps of
// lightness in Oklab (Bjorn Ottosson's perceptual space), so that a reader who sees no hue, or only some
// hues, still sees the order. Tables have 256 opaque RGBA entries.
import type { MetricInfo } from "../protocol/types.gen";

export type Rgb = readonly [number, number, number];
export const TABLE_SIZE = 256;

/** Oklab to linear sRGB; components may fall outside [0, 1]. */
function oklabToLinear(L: number, a: number, b: number): Rgb {
	const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
	const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
	const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
	return [
		4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
		-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
		-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
	];
}

function encodeGamma(linear: number): number {
	const x = Math.min(1, Math.max(0, linear));
	return Math.round(255 * (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055));
}

/** A colour of lightness L; chroma is lowered, never lightness, until the screen can show it. */
export function oklabToRgb(L: number, a: number, b: number): Rgb {
	let low = 0;
	let high = 1;
	const inside = (scale: number) =>
		oklabToLinear(L, a * scale, b * scale).every((x) => x >= -1e-4 && x <= 1 + 1e-4);
	if (inside(1)) low = 1;
	else {
		for (let i = 0; i < 12; i++) {
			const middle = (low + high) / 2;
			if (inside(middle)) low = middle;
			else high = middle;
		}
	}
	const [red, green, blue] = oklabToLinear(L, a * low, b * low);
	return [encodeGamma(red), encodeGamma(green), encodeGamma(blue)];
}

/** Lightness in Oklab of an sRGB colour with components 0..255. */
export function lightness([red, green, blue]: Rgb): number {
	const decode = (c: number) => {
		const x = c / 255;
		return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
	};
	const [r, g, b] = [decode(red), decode(green), decode(blue)];
	const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
	const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
	const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
	return 0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s;
}

/** Chroma and hue (degrees) along a scale; lightness is not among them, it is always a straight line. */
type Stop = readonly [chroma: number, hue: number];

const INK_TO_STRAW: readonly Stop[] = [
	[0.07, 285],
	[0.13, 275],
	[0.12, 250],
	[0.1, 215],
	[0.11, 180],
	[0.14, 150],
	[0.16, 118],
	[0.13, 100],
];
const TO_BLUE: readonly Stop[] = [
	[0.0, 250],
	[0.1, 250],
	[0.15, 255],
];
const TO_ORANGE: readonly Stop[] = [
	[0.0, 55],
	[0.11, 55],
	[0.15, 45],
];

/** The colour at t in [0, 1]: chroma-hue interpolated as a straight line in Oklab between stops. */
function along(stops: readonly Stop[], t: number, from: number, to: number): Rgb {
	const place = t * (stops.length - 1);
	const index = Math.min(stops.length - 2, Math.floor(place));
	const share = place - index;
	const [c0, h0] = stops[index]!;
	const [c1, h1] = stops[index + 1]!;
	const mix = (wave: (radians: number) => number) =>
		c0 * wave((h0 * Math.PI) / 180) * (1 - share) + c1 * wave((h1 * Math.PI) / 180) * share;
	return oklabToRgb(from + (to - from) * t, mix(Math.cos), mix(Math.sin));
}

function table(colour: (t: number) => Rgb): Uint8ClampedArray {
	const entries = new Uint8ClampedArray(TABLE_SIZE * 4);
	for (let i = 0; i < TABLE_SIZE; i++) entries.set([...colour(i / (TABLE_SIZE - 1)), 255], i * 4);
	return entries;
}

/** Dark to light; the same on a light and a dark page, so that screenshots compare. */
export const SEQUENTIAL = table((t) => along(INK_TO_STRAW, t, 0.2, 0.94));

/** Blue below, orange above; the neutral middle is close to the page's own ground. */
export const DIVERGING = {
	light: table((t) =>
		t < 0.5 ? along(TO_BLUE, 1 - 2 * t, 0.95, 0.42) : along(TO_ORANGE, 2 * t - 1, 0.95, 0.42),
	),
	dark: table((t) =>
		t < 0.5 ? along(TO_BLUE, 1 - 2 * t, 0.28, 0.8) : along(TO_ORANGE, 2 * t - 1, 0.28, 0.8),
	),
};

export function colourAt(entries: Uint8ClampedArray, t: number): Rgb {
	const i = Math.round(Math.min(1, Math.max(0, t)) * (TABLE_SIZE - 1)) * 4;
	return [entries[i]!, entries[i + 1]!, entries[i + 2]!];
}

export function cssGradient(entries: Uint8ClampedArray): string {
	const stops = Array.from({ length: 17 }, (_, i) => `rgb(${colourAt(entries, i / 16).join(" ")})`);
	return `linear-gradient(to right, ${stops.join(", ")})`;
}

/** The colours of a metric, from the low end of its scale to the high end. */
export function tableOf({ scale }: MetricInfo, dark: boolean): Uint8ClampedArray {
	if (scale.kind === "sequential") return SEQUENTIAL;
	return dark ? DIVERGING.dark : DIVERGING.light;
}
