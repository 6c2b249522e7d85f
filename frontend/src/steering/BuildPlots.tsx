// What a build found, as two small plots and the replies behind them: how well each layer tells the two sides
// apart, and what strengths do and what they cost.
import type { BuildResult } from "./api";
import { extent, path, scale } from "./plots";

const WIDTH = 300;
const HEIGHT = 120;
const [LEFT, RIGHT, TOP, BOTTOM] = [26, WIDTH - 8, 10, HEIGHT - 20];
/** A layer that guesses gets half of the held-out examples right. */
const CHANCE = 0.5;

export function BuildPlots({ result }: { result: BuildResult }) {
	return (
		<>
			<div className="plots">
				<Separation result={result} />
				<Effect result={result} />
			</div>
			{/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region must be reachable by keyboard */}
			<section className="samples-scroller" tabIndex={0} aria-label="A reply at each strength">
				<table className="samples" data-testid="build-samples">
					<thead>
						<tr>
							<th scope="col">strength</th>
							<th scope="col">effect</th>
							<th scope="col">damage</th>
							<th scope="col">a reply</th>
						</tr>
					</thead>
					<tbody>
						{result.sweep.map(({ strength, effect, damage, sample }) => (
							<tr key={strength} className={inRange(result, strength) ? "in-range" : undefined}>
								<th scope="row">{signed(strength)}</th>
								<td>{effect.toFixed(2)}</td>
								<td>{damage.toFixed(2)}</td>
								<td className="sample">{sample}</td>
							</tr>
						))}
					</tbody>
				</table>
			</section>
		</>
	);
}

function Separation({ result }: { result: BuildResult }) {
	const { separation, layer } = result;
	const layers = separation.map((one) => one.layer);
	const [first, last] = [Math.min(...layers), Math.max(...layers)];
	const x = scale(first, last, LEFT, RIGHT);
	const lowest = Math.min(CHANCE, ...separation.map(({ score }) => score));
	const y = scale(lowest, 1, BOTTOM, TOP);
	const chosen = separation.find((one) => one.layer === layer);
	const score = chosen === undefined ? "" : ` It tells ${percent(chosen.score)} of held-out pairs apart.`;
	return (
		<figure className="plot">
			<figcaption>Separation per layer</figcaption>
			<svg
				viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
				role="img"
				data-testid="build-separation"
				data-layer={layer}
				aria-label={`Separation per layer. Layer ${layer} was chosen.${score}`}
			>
				<line className="plot-base" x1={LEFT} x2={RIGHT} y1={y(CHANCE)} y2={y(CHANCE)} />
				<text className="plot-text" x={LEFT - 4} y={y(1) + 4} textAnchor="end">
					1
				</text>
				<text className="plot-text" x={LEFT - 4} y={y(CHANCE) + 4} textAnchor="end">
					0.5
				</text>
				<line className="plot-chosen" x1={x(layer)} x2={x(layer)} y1={TOP} y2={BOTTOM} />
				<path
					className="plot-line"
					d={path(separation.map((one) => ({ x: x(one.layer), y: y(one.score) })))}
				/>
				{chosen !== undefined && <circle className="plot-dot" cx={x(layer)} cy={y(chosen.score)} r="4" />}
				<text className="plot-text" x={LEFT} y={HEIGHT - 6}>
					layer {first}
				</text>
				<text className="plot-text" x={RIGHT} y={HEIGHT - 6} textAnchor="end">
					{last}
				</text>
			</svg>
			<p className="hint">
				Layer {layer} was chosen.{score} The dashed line is chance.
			</p>
		</figure>
	);
}

function Effect({ result }: { result: BuildResult }) {
	const { sweep, range, suggested } = result;
	const strengths = sweep.map(({ strength }) => strength);
	const x = scale(Math.min(...strengths, range[0]), Math.max(...strengths, range[1]), LEFT, RIGHT);
	const lines = (["effect", "damage"] as const).map((name) => {
		const values = sweep.map((one) => one[name]);
		// Each in its own unit: what counts is where one rises and the other does not yet.
		const y = scale(...extent(values), BOTTOM, TOP);
		return { name, zero: y(0), d: path(sweep.map((one) => ({ x: x(one.strength), y: y(one[name]) }))) };
	});
	return (
		<figure className="plot">
			<figcaption>Effect and damage</figcaption>
			<svg
				viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
				role="img"
				data-testid="build-sweep"
				aria-label={`Effect and damage over strengths. From ${range[0]} to ${range[1]} is safe.`}
			>
				<rect
					className="plot-range"
					x={x(range[0])}
					width={Math.max(0, x(range[1]) - x(range[0]))}
					y={TOP}
					height={BOTTOM - TOP}
				/>
				<line className="plot-base" x1={LEFT} x2={RIGHT} y1={lines[0]!.zero} y2={lines[0]!.zero} />
				<line className="plot-chosen" x1={x(suggested)} x2={x(suggested)} y1={TOP} y2={BOTTOM} />
				{lines.map(({ name, d }) => (
					<path key={name} className={`plot-line ${name}`} d={d} />
				))}
				<text className="plot-text" x={LEFT} y={HEIGHT - 6}>
					{signed(Math.min(...strengths))}
				</text>
				{x(suggested) > LEFT + 40 && x(suggested) < RIGHT - 40 && (
					<text className="plot-text" x={x(suggested)} y={HEIGHT - 6} textAnchor="middle">
						{signed(suggested)}
					</text>
				)}
				<text className="plot-text" x={RIGHT} y={HEIGHT - 6} textAnchor="end">
					{signed(Math.max(...strengths))}
				</text>
			</svg>
			<p className="hint plot-key">
				<span className="key effect">effect</span>
				<span className="key damage">damage</span>
				<span>
					Shaded: {signed(range[0])} to {signed(range[1])}, each line in its own unit.
				</span>
			</p>
		</figure>
	);
}

function inRange({ range }: BuildResult, strength: number): boolean {
	return strength >= range[0] && strength <= range[1];
}

const percent = (share: number) => `${Math.round(100 * share)} %`;
const signed = (value: number) => `${value > 0 ? "+" : ""}${Math.round(value * 1000) / 1000}`;
