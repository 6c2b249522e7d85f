// The heatmap panel: toolbar, legend, the two canvases with their view, tooltip, keys, and the sentence that
// a screen reader hears when keys move the cursor.
import { type KeyboardEvent, type PointerEvent, useEffect, useRef, useState } from "react";
import type { Session } from "../session/session";
import { defaultWatch, type Watch } from "../session/watch";
import { EyeIcon, LatestIcon, MinusIcon, PlusIcon } from "../ui/icons";
import { useSignal } from "../ui/useSignal";
import { FromCache } from "./FromCache";
import { COLUMN_WIDTHS } from "./geometry";
import { moved } from "./keys";
import { Legend } from "./Legend";
import { MetricPicker } from "./MetricPicker";
import type { Drawn } from "./painter";
import { Shelved } from "./Shelved";
import { CursorSentence, Tooltip } from "./Tooltip";
import { Unwatched } from "./Unwatched";
import { HeatmapView } from "./view";
import { WatchPanel } from "./WatchPanel";

interface HeatmapProps {
	session: Session;
	dark: boolean;
	/** What the next reply is watched with, and how that is changed; left out where none can be asked for. */
	watch?: Watch;
	onWatch?(watch: Watch): void;
}

export function Heatmap({ session, dark, watch, onWatch }: HeatmapProps) {
	useSignal(session.changed);
	useSignal(session.view.changed);
	const run = session.shown;
	const { strip } = session;
	const { metrics, model } = session.server;
	const metric = session.mapped;
	const { zoom, ranges } = session.view.now;
	const setZoom = (next: number) => session.looking.setZoom(next);
	const range = metric === null ? null : (ranges[metric.id] ?? null);
	const [following, setFollowing] = useState(true);
	const [drawn, setDrawn] = useState<Drawn | null>(null);
	const [view, setView] = useState<HeatmapView | null>(null);
	const [watching, setWatching] = useState(false);
	const watchButton = useRef<HTMLButtonElement>(null);
	const host = useRef<HTMLDivElement>(null);
	const scroller = useRef<HTMLDivElement>(null);
	const track = useRef<HTMLDivElement>(null);
	const cells = useRef<HTMLCanvasElement>(null);
	const overlay = useRef<HTMLCanvasElement>(null);

	useEffect(() => {
		const made = new HeatmapView(
			{
				host: host.current!,
				scroller: scroller.current!,
				track: track.current!,
				cells: cells.current!,
				overlay: overlay.current!,
			},
			session.cursor,
			{ onDrawn: setDrawn, onFollowing: setFollowing },
			session.labelOf,
		);
		setView(made);
		return () => made.dispose();
	}, [session]);

	const layers = model?.layers ?? 0;
	useEffect(() => {
		view?.show({ strip, metric, layers, columnWidth: COLUMN_WIDTHS[zoom]!, dark, range });
	}, [view, strip, metric, layers, zoom, dark, range]);

	// A token hovered in the text may be out of view; while the map follows its tail it stays where it is.
	useEffect(
		() =>
			session.cursor.changed.subscribe(() => {
				const cursor = session.cursor.cursor;
				if (cursor !== null && cursor.by !== "pointer" && !(cursor.by === "text" && session.live)) {
					view?.reveal(cursor.position);
				}
			}),
		[session, view],
	);

	const onPointer = (event: PointerEvent<HTMLElement>) => {
		if (view === null || run === null) return;
		const box = cells.current!.getBoundingClientRect();
		const cell = view.hit(event.clientX - box.left, event.clientY - box.top);
		session.cursor.set(cell === null ? null : { ...cell, run: run.id, by: "pointer" });
	};
	const onLeave = (event: PointerEvent<HTMLElement>) => {
		if (event.pointerType === "mouse" && session.cursor.cursor?.by === "pointer") session.cursor.set(null);
	};
	const onKey = (event: KeyboardEvent<HTMLElement>) => {
		if (view === null || run === null || run.tokens.length === 0) return;
		const layersNow = strip?.layers || layers;
		const next = moved(event.key, session.cursor.cursor, run.tokens.length, layersNow, view.pageColumns());
		if (next === undefined) return;
		event.preventDefault();
		session.cursor.set(next === null ? null : { ...next, run: run.id, by: "keys" });
	};

	return (
		<section className="panel heatmap-panel" aria-label="Heatmap">
			<header className="panel-head">
				<h2>Layers by tokens</h2>
				<MetricPicker metrics={session.metrics} metric={metric} onPick={(id) => session.pickMetric(id)} />
				<span className="spring" />
				{watch !== undefined && (
					<button
						type="button"
						className="quiet"
						data-testid="watch"
						title={session.can.watch ?? "What the next reply is watched with"}
						disabled={session.can.watch !== null}
						aria-expanded={watching}
						aria-controls="watch-panel"
						ref={watchButton}
						onClick={() => setWatching(!watching)}
					>
						<EyeIcon /> Watch
					</button>
				)}
				<fieldset className="zoom">
					<legend className="sr-only">Width of the columns</legend>
					<button
						type="button"
						className="quiet"
						aria-label="Narrower columns"
						title="Narrower columns"
						disabled={zoom === 0}
						onClick={() => setZoom(zoom - 1)}
					>
						<MinusIcon />
					</button>
					<button
						type="button"
						className="quiet"
						aria-label="Wider columns"
						title="Wider columns"
						disabled={zoom === COLUMN_WIDTHS.length - 1}
						onClick={() => setZoom(zoom + 1)}
					>
						<PlusIcon />
					</button>
				</fieldset>
			</header>
			{watching && watch !== undefined && (
				<WatchPanel
					metrics={metrics}
					watch={watch}
					onChange={(next) => onWatch?.(next)}
					onClose={() => {
						setWatching(false);
						watchButton.current?.focus();
					}}
				/>
			)}
			<div className="heatmap" ref={host} data-testid="heatmap">
				<div
					className="heatmap-scroller"
					ref={scroller}
					// biome-ignore lint/a11y/noNoninteractiveTabindex: the map is explored with the arrow keys
					tabIndex={0}
					role="application"
					aria-roledescription="heatmap"
					aria-label={`Heatmap of ${metric?.label ?? "no metric"}, layers by tokens. Move with the arrow keys.`}
					onPointerMove={onPointer}
					onPointerDown={onPointer}
					onPointerLeave={onLeave}
					onKeyDown={onKey}
				>
					<div className="heatmap-track" ref={track}>
						<div className="heatmap-stage">
							<canvas ref={cells} />
							<canvas ref={overlay} className="heatmap-overlay" />
						</div>
					</div>
				</div>
				{view !== null && <Tooltip session={session} view={view} metric={metric} />}
				{!following && (
					<button
						type="button"
						className="jump"
						data-testid="jump-latest"
						onClick={() => view?.jumpToLatest()}
					>
						<LatestIcon /> Latest
					</button>
				)}
				{run === null && (
					<p className="heatmap-empty">
						{session.continues
							? "Each column is a token, each row a layer. Begin a text, and the map grows while it is continued."
							: "Each column is a token, each row a layer. Ask something, and the map grows while the reply is written."}
					</p>
				)}
				{run?.delivery.gone != null && (
					<p className="heatmap-empty" role="status" data-testid="heatmap-gone">
						{run.delivery.gone}
					</p>
				)}
				{strip !== null && <Shelved strip={strip} />}
				{run !== null && metric !== null && !run.watches(metric.id) && (
					<Unwatched
						metric={metric}
						next={watch !== undefined && session.can.watch === null}
						watch={watch ?? defaultWatch()}
						onWatch={(next) => {
							onWatch?.(next);
							// The button goes; the keyboard stays near where the choice can be taken back.
							watchButton.current?.focus();
						}}
					/>
				)}
			</div>
			<footer className="heatmap-foot">
				{metric?.error != null && (
					<p className="metric-error" role="status" data-testid="metric-error">
						{metric.label} failed on the server and is switched off: {metric.error}
					</p>
				)}
				{strip !== null && <FromCache session={session} strip={strip} />}
				{metric !== null && <Legend session={session} metric={metric} drawn={drawn} dark={dark} />}
			</footer>
			<CursorSentence session={session} metric={metric} />
		</section>
	);
}
