// What the pointed cell is, in words: beside the pointer for the eye, and as a sentence for a screen reader
// when keys moved the cursor (a pointer moves too much to be read aloud).
import { useLayoutEffect, useRef } from "react";
import type { MetricInfo } from "../protocol/types.gen";
import type { Cursor } from "../session/cursor";
import type { Session } from "../session/session";
import { type ChosenExpert, chosenExperts } from "../store/experts";
import type { Guess } from "../store/guesses";
import { NO_ROW } from "../store/rows";
import type { Run } from "../store/run";
import { useSignal } from "../ui/useSignal";
import { beside } from "./geometry";
import { readable } from "./labels";
import { formatShare, formatValue, toDisplay } from "./scale";
import type { HeatmapView } from "./view";

/** Least room between the tooltip and the window's edges. */
const EDGE = 4;
/** So many guesses are read aloud; the tooltip shows all. */
const SPOKEN = 3;

interface Props {
	session: Session;
	metric: MetricInfo | null;
}

export function Tooltip({ session, metric, view }: Props & { view: HeatmapView }) {
	useSignal(session.cursor.changed);
	useSignal(view.moved);
	const { cursor } = session.cursor;
	const run = session.shown;
	const box = useRef<HTMLDivElement>(null);
	// How large it is, is known only once it is there; before the browser paints it has its place.
	useLayoutEffect(() => {
		const element = box.current;
		const anchor = cursor === null ? null : view.locate(cursor);
		if (element === null || anchor === null) return;
		const map = element.offsetParent?.getBoundingClientRect() ?? new DOMRect();
		const { clientWidth, clientHeight } = document.documentElement;
		const { left, top } = beside(anchor, element.getBoundingClientRect(), {
			left: EDGE - map.left,
			top: EDGE - map.top,
			right: clientWidth - EDGE - map.left,
			bottom: clientHeight - EDGE - map.top,
		});
		element.style.left = `${left}px`;
		element.style.top = `${top}px`;
	});
	if (cursor === null || run === null || cursor.run !== run.id) return null;
	const token = run.tokens.textAt(cursor.position);
	if (view.locate(cursor) === null || token === undefined) return null;
	const owner = session.strip?.owner(cursor.position) ?? run;
	const rev = owner.rows.rev(cursor.position);
	const next = nextToken(run, cursor.position);
	const drawn = drawnText(owner, cursor.position);
	const guesses = cursor.layer === null ? null : owner.guesses.at(cursor.position, cursor.layer);
	const experts = cursor.layer === null ? null : chosenExperts(owner.rows, cursor.position, cursor.layer);
	return (
		<div className="tooltip" data-testid="heatmap-tooltip" ref={box}>
			<div className="tooltip-token">
				<span className="unit">reading</span> <bdi>{shownToken(token)}</bdi>
			</div>
			{next !== null && (
				<div className="tooltip-next" data-testid="tooltip-next">
					<span className="unit">{next.verb}</span> <bdi>{shownToken(next.text)}</bdi>
				</div>
			)}
			{drawn !== "" && (
				<p className="tooltip-drawn" data-testid="tooltip-drawn">
					{drawn}
				</p>
			)}
			<dl>
				<dt>token</dt>
				<dd>
					{cursor.position}
					<span className="unit"> {cursor.position < run.tokens.promptLength ? "prompt" : "reply"}</span>
				</dd>
				{cursor.layer !== null && (
					<>
						<dt>layer</dt>
						<dd>{cursor.layer}</dd>
						<dt>
							<bdi>{metric?.label ?? "value"}</bdi>
						</dt>
						<dd>{valueText(owner, metric, cursor)}</dd>
					</>
				)}
				<dt>revision</dt>
				<dd>
					{rev === NO_ROW ? (run.cached.has(cursor.position) ? "not computed" : "none yet") : rev}
					{owner !== run && <span className="unit"> of an earlier turn</span>}
				</dd>
			</dl>
			{experts !== null && <Experts experts={experts} />}
			{guesses !== null && <Guesses guesses={guesses} written={run.tokens.idAt(cursor.position + 1)} />}
		</div>
	);
}

function Experts({ experts }: { experts: ChosenExpert[] }) {
	return (
		<div className="tooltip-list" data-testid="tooltip-experts">
			<p>experts: weight, share of this run's tokens</p>
			<ol>
				{experts.map(({ expert, weight, load }) => (
					<li key={expert}>
						<span className="guess">{expert}</span>
						<span className="share">{formatValue(weight)}</span>
						<span className="unit">{formatShare(load)}</span>
					</li>
				))}
			</ol>
		</div>
	);
}

function Guesses({ guesses, written }: { guesses: Guess[]; written: number | undefined }) {
	return (
		<div className="tooltip-list" data-testid="tooltip-guesses">
			<p>raw logit lens: next token</p>
			<ol>
				{guesses.map(({ id, text, probability }) => (
					<li key={id} className={id === written ? "written" : undefined}>
						<span className="guess" dir="auto">
							{shownToken(text)}
						</span>
						{id === written && <span className="unit">written</span>}
						<span className="share">{formatShare(probability)}</span>
					</li>
				))}
			</ol>
		</div>
	);
}

/** The token behind one that is read: of the reply the model writes it, and of the prompt it only comes next. */
export function nextToken(run: Run, position: number): { verb: "writing" | "next"; text: string } | null {
	const text = run.tokens.textAt(position + 1);
	if (text === undefined) return null;
	return { verb: position + 1 < run.tokens.promptLength ? "next" : "writing", text };
}

function shownToken(text: string): string {
	return readable(text) || "(part of a character)";
}

/** How likely a token of the reply was when it was drawn, as far as that is known; "" in the prompt. */
export function drawnText(run: Run, position: number): string {
	const [surprisal, rank, entropy] = [
		run.tokens.surprisal(position),
		run.tokens.rank(position),
		run.entropyBefore(position),
	];
	const words: string[] = [];
	if (surprisal !== null) words.push(`surprisal ${formatValue(surprisal)} nats`);
	if (rank !== null) words.push(`rank ${rank.toLocaleString("en")}`);
	if (entropy !== null) words.push(`drawn at entropy ${formatValue(entropy)} nats`);
	return words.join(", ");
}

export function CursorSentence({ session, metric }: Props) {
	useSignal(session.cursor.changed);
	const { cursor } = session.cursor;
	const run = session.shown;
	const spoken = cursor?.by === "keys" && run !== null && cursor.run === run.id;
	return (
		<p className="sr-only" aria-live="polite" data-testid="heatmap-sentence">
			{spoken && cursorSentence(run, metric, cursor, session.strip?.owner(cursor.position))}
		</p>
	);
}

/** `owner` is the run whose numbers stand there. */
export function cursorSentence(
	run: Run,
	metric: MetricInfo | null,
	cursor: Cursor,
	owner: Run = run,
): string {
	const token = JSON.stringify(run.tokens.textAt(cursor.position) ?? "");
	const part = cursor.position < run.tokens.promptLength ? "prompt" : "reply";
	const drawn = drawnText(owner, cursor.position);
	const next = nextToken(run, cursor.position);
	const writes = next === null ? "" : `, ${next.verb} ${JSON.stringify(next.text)}`;
	const where = `Token ${cursor.position} of the ${part}, reading ${token}${writes}${drawn === "" ? "" : `, ${drawn}`}`;
	const rev = owner.rows.rev(cursor.position);
	if (rev === NO_ROW) {
		return `${where}: ${run.cached.has(cursor.position) ? "not computed, it was in the engine's cache" : "no row yet"}.`;
	}
	if (cursor.layer === null) return `${where}, revision ${rev}.`;
	const value = `${metric?.label ?? "value"} ${valueText(owner, metric, cursor)}`;
	const turn = owner === run ? "" : " of an earlier turn";
	return `${where}, layer ${cursor.layer}: ${value}, revision ${rev}${turn}.${expertSentence(owner, cursor)}${guessSentence(owner, cursor)}`;
}

function expertSentence(run: Run, cursor: Cursor): string {
	const experts = cursor.layer === null ? null : chosenExperts(run.rows, cursor.position, cursor.layer);
	if (experts === null) return "";
	const words = experts.map(({ expert, weight }) => `${expert} with weight ${formatValue(weight)}`);
	return ` Experts: ${words.join(", ")}.`;
}

function guessSentence(run: Run, cursor: Cursor): string {
	const guesses = cursor.layer === null ? null : run.guesses.at(cursor.position, cursor.layer);
	if (guesses === null) return "";
	const words = guesses
		.slice(0, SPOKEN)
		.map(({ text, probability }) => `${JSON.stringify(text)} ${formatShare(probability)}`);
	return ` Raw logit lens, next token: ${words.join(", ")}.`;
}

function valueText(run: Run, metric: MetricInfo | null, cursor: Cursor): string {
	if (metric === null || cursor.layer === null) return "no value";
	const sent = run.rows.value(metric.id, cursor.position, cursor.layer);
	if (sent === undefined && run.cached.has(cursor.position)) return "in the engine's cache";
	if (sent === undefined && !run.rows.has(cursor.position)) return "no value yet";
	if (sent === null) return "being fetched";
	// Numbers that were had once, and that nobody has any more.
	if (sent === undefined && run.delivery.gone !== null) return "no longer here";
	// A run that is not watched with the metric, or a layer or position that the logit lens skips.
	if (sent === undefined || Number.isNaN(sent)) return "not computed here";
	const shown = formatValue(toDisplay(metric, sent));
	return metric.unit === "" ? shown : `${shown} ${metric.unit}`;
}
