// What is seen while a run is steered: at each slider the projection, a warning and what a slider back at 0 left
// behind; above the sliders how much each layer's steering added and how far the reply repeats itself. Only
// these parts are drawn anew with every row.
import type { VectorInfo } from "../protocol/types.gen";
import type { Session } from "../session/session";
import type { Settings } from "../session/settings";
import type { Run } from "../store/run";
import { useSignal } from "../ui/useSignal";
import { type DamageMeter, projectionNow, shareNow } from "./live";

interface SignsProps {
	session: Session;
	run: Run;
	meter: DamageMeter;
}

/** One for the whole panel: what a screen reader hears, once, when a reply begins to break. */
export function RunSigns({ session, run, meter }: SignsProps) {
	useSignal(run.changed);
	const { steering } = session;
	const damage = meter.read(run);
	const active = session.server.vectors.filter(({ id }) => steering.acts(id));
	const share = shareNow(run);
	const warned = damage.broken && active.length > 0;
	return (
		<>
			<p className="sr-only" aria-live="polite" data-testid="breaking">
				{warned ? breaking(active.length) : ""}
			</p>
			{share !== null && (
				<dl className="run-signs" data-testid="run-signs">
					<div className="share">
						<dt>added per layer</dt>
						<dd>
							<ShareBars share={share} />
						</dd>
					</div>
					<div title="Share of the last 20 words that occur earlier among them">
						<dt>repetition</dt>
						<dd data-testid="repetition" className={damage.broken ? "bad" : undefined}>
							{damage.repetition === null ? "\u2013" : `${Math.round(100 * damage.repetition)} %`}
						</dd>
					</div>
					<div title="Mean entropy of the distributions of the last 20 tokens">
						<dt>entropy</dt>
						<dd data-testid="entropy">
							{damage.entropy === null ? "\u2013" : `${damage.entropy.toFixed(2)} nats`}
						</dd>
					</div>
				</dl>
			)}
		</>
	);
}

function breaking(active: number): string {
	return active > 1 ? "These strengths are breaking the reply." : "This strength is breaking the reply.";
}

const BAR = 4;
const HEIGHT = 22;

function ShareBars({ share }: { share: readonly number[] }) {
	const most = Math.max(...share);
	const top = Math.max(0.5, most);
	const words =
		most === 0
			? "Steering adds nothing now."
			: `Steering adds at most ${percent(most)} of the stream's length, at layer ${share.indexOf(most)}.`;
	return (
		<>
			<svg
				className="share-bars"
				data-testid="steering-share"
				data-most={most.toFixed(4)}
				viewBox={`0 0 ${share.length * BAR} ${HEIGHT}`}
				width={share.length * BAR}
				height={HEIGHT}
				role="img"
				aria-label={words}
			>
				<title>{words}</title>
				{share.map((value, layer) => (
					<rect
						// biome-ignore lint/suspicious/noArrayIndexKey: a layer is its index
						key={layer}
						className={value > 0 ? "share-bar on" : "share-bar"}
						x={layer * BAR}
						width={BAR - 1}
						y={HEIGHT - 1 - (value / top) * (HEIGHT - 1)}
						height={1 + (value / top) * (HEIGHT - 1)}
					/>
				))}
			</svg>
			<span className="share-most">{percent(most)}</span>
		</>
	);
}

const percent = (share: number) => `${Math.round(100 * share)} %`;

interface SliderSignsProps extends SignsProps {
	vector: VectorInfo;
	/** Null where the reply cannot be written on. */
	settings: Settings | null;
}

export function SliderSigns({ session, run, meter, vector, settings }: SliderSignsProps) {
	useSignal(run.changed);
	useSignal(session.changed);
	useSignal(session.steering.changed);
	const { steering } = session;
	if (steering.leftBehind(vector.id)) {
		return (
			<div className="slider-note" data-testid={`left-behind-${vector.id}`}>
				<p role="status">Tokens written under steering stay in the model's memory.</p>
				{session.canWriteOn && settings !== null && (
					<button
						type="button"
						className="quiet small bordered"
						data-testid={`write-on-${vector.id}`}
						title="Computes the reply's text anew with the present sliders and goes on from its end"
						onClick={() => session.writeOn(settings)}
					>
						Write on from here again
					</button>
				)}
			</div>
		);
	}
	if (!steering.acts(vector.id)) return null;
	const projection = projectionNow(run, vector, steering.setting(vector.id));
	const active = session.server.vectors.filter(({ id }) => steering.acts(id)).length;
	return (
		<>
			{projection !== null && (
				<p
					className="slider-projection"
					data-testid={`projection-${vector.id}`}
					title="Share of the stream's length that lies along the vector, at the newest token"
				>
					projection <b data-testid={`projection-after-${vector.id}`}>{projection.after.toFixed(3)}</b>
					{projection.before !== null && <>, before steering {projection.before.toFixed(3)}</>}
					{` (layer ${projection.layer})`}
				</p>
			)}
			{meter.read(run).broken && (
				<p className="slider-warning" data-testid={`breaking-${vector.id}`}>
					{breaking(active)}
				</p>
			)}
		</>
	);
}
