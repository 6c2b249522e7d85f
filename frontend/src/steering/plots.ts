// Where the points of a small plot lie. Pure: numbers in, numbers out; the drawing is React's.
export interface Box {
	width: number;
	height: number;
	left: number;
	right: number;
	top: number;
	bottom: number;
}

export type Scale = (value: number) => number;

/** A straight scale from [lo, hi] to [from, to]; the middle where the span is empty. */
export function scale(lo: number, hi: number, from: number, to: number): Scale {
	return (value) => (hi === lo ? (from + to) / 2 : from + ((value - lo) / (hi - lo)) * (to - from));
}

/** An SVG path through points in order; points that are no numbers leave a gap. */
export function path(points: readonly { x: number; y: number }[]): string {
	let pen = "M";
	let out = "";
	for (const { x, y } of points) {
		if (!Number.isFinite(x) || !Number.isFinite(y)) {
			pen = "M";
			continue;
		}
		out += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
		pen = "L";
	}
	return out;
}

/** Smallest and largest of the numbers among some, 0 always within. */
export function extent(values: readonly number[]): [number, number] {
	const known = values.filter(Number.isFinite);
	return [Math.min(0, ...known), Math.max(0, ...known)];
}
