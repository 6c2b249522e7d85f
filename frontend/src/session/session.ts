// The page's one session with a server: what a person can do, and what the page shows of it. It puts the parts
// together and does nothing itself; frames go their own way (`FrameRouter`).
import { browserClock, type Clock } from "../connection/clock";
import { Connection } from "../connection/connection";
import type { ConnectionState } from "../connection/phase";
import type { OpenTransport } from "../connection/transport";
import { FIRST_ZOOM } from "../heatmap/geometry";
import { ModelApi } from "../models/api";
import type { MetricInfo } from "../protocol/types.gen";
import { VectorApi } from "../steering/api";
import { VectorBuild } from "../steering/build";
import { Edits } from "../steering/edits";
import { Steering } from "../steering/steering";
import type { Run } from "../store/run";
import { Shelving, type ShelvingOptions } from "../store/shelving";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import { Strip } from "../store/strip";
import { History } from "../view/history";
import { Looking } from "../view/looking";
import { firstView, ViewStore } from "../view/view";
import { Asking } from "./asking";
import type { Turn } from "./conversation";
import { CursorStore } from "./cursor";
import { Delivery } from "./delivery";
import { Elsewhere, type RecordedTurn } from "./elsewhere";
import { type Filled, Filling } from "./filling";
import { FrameRouter } from "./frames";
import type { Kept } from "./kept";
import { mapped, offered } from "./metrics";
import { Notebooks } from "./notebooks";
import { Notes, type Notice } from "./notes";
import { Offers } from "./offers";
import type { Parts } from "./parts";
import { KnownServer } from "./server";
import type { Settings } from "./settings";
import { tabStorage } from "./storage";
import { saveToken } from "./token";
import { type Aside, Turns } from "./turns";

/** What a person can do now: null where they can, or the sentence that says why not. */
export interface Can {
	ask: string | null;
	steer: string | null;
	watch: string | null;
}

export class Session {
	readonly changed: Signal;
	readonly steering: Steering;
	/** Code of notebooks that replies may have. */
	readonly edits: Edits;
	readonly cursor: CursorStore;
	/** What the person looks at. */
	readonly view: ViewStore;
	readonly history: History;
	readonly looking: Looking;
	readonly connection: Connection;
	readonly api: VectorApi;
	readonly models: ModelApi;
	readonly build: VectorBuild;
	readonly server = new KnownServer();
	/** What stands in the composer and was not sent. */
	draft = "";
	/** Milliseconds that the last ping took to come back; null while there is no line. Told by `pinged`. */
	latency: number | null = null;
	/** A ping came back. Only its number changes then, and nothing else on the page need be looked at. */
	readonly pinged: Signal;
	/** Takes numbers to disk that are too many for the page's memory, and back. */
	readonly shelf: Shelving;
	readonly #turns: Turns;
	#strip: Strip | null = null;
	readonly #notes: Notes;
	readonly #offers: Offers;
	readonly #delivery: Delivery;
	readonly #asking: Asking;
	readonly #elsewhere: Elsewhere;
	readonly #filling: Filling;
	/** What notebooks have begun. */
	readonly notebooks: Notebooks;
	/** The name of a slider, by its id. */
	readonly labelOf = (id: string): string =>
		this.server.vectors.find((vector) => vector.id === id)?.label ?? id;

	constructor(
		open: OpenTransport,
		token: string | null,
		batch: FrameBatch = pageBatch,
		clock: Clock = browserClock,
		/** Why its source takes nothing, as a sentence; null for a server. */
		readOnly: string | null = null,
		/** Where numbers go that are too many for the page's memory, and how many are. */
		place: Pick<ShelvingOptions, "disk" | "budget"> = { disk: null },
	) {
		this.server.readOnly = readOnly;
		this.changed = new Signal(batch);
		this.pinged = new Signal(batch);
		this.cursor = new CursorStore(batch);
		this.view = new ViewStore(firstView(FIRST_ZOOM), batch);
		this.history = new History(() => clock.now(), batch);
		this.looking = new Looking(this.view, this.history, () => this.#onShown());
		this.#turns = new Turns(this.view);
		this.connection = new Connection(
			open,
			{
				onState: (state) => this.#onState(state),
				onFrame: (frame) => router.onFrame(frame),
				onLatency: (ms) => {
					this.latency = ms;
					this.pinged.changed();
				},
				onBadFrame: (message) => this.#notes.notify("page", message),
			},
			token,
			clock,
		);
		this.api = new VectorApi(() => this.connection.token);
		this.models = new ModelApi(() => this.connection.token);
		this.build = new VectorBuild(this.api, clock, readOnly === null ? tabStorage() : null, batch);
		this.steering = new Steering(
			(run, rev, steered) => this.connection.send({ type: "steer", run, rev, ...steered }),
			clock,
			batch,
			{
				history: this.history,
				label: this.labelOf,
			},
		);
		this.edits = new Edits(
			() => this.changed.changed(),
			() => this.connection.token,
		);
		this.#notes = new Notes(this.changed);
		this.#offers = new Offers(this.server, this.steering, this.#notes, this.view);
		this.#delivery = new Delivery((frame) => this.connection.send(frame), clock);
		const { connection, server, steering, edits, cursor, changed } = this;
		const [turns, notes, offers, delivery] = [this.#turns, this.#notes, this.#offers, this.#delivery];
		const parts: Parts = {
			connection,
			server,
			turns,
			notes,
			offers,
			steering,
			edits,
			delivery,
			cursor,
			clock,
			batch,
			changed,
		};
		this.#asking = new Asking(parts);
		this.notebooks = new Notebooks(parts, () => this.#idle);
		this.#elsewhere = new Elsewhere(parts, this.notebooks);
		this.#filling = new Filling(parts);
		const router = new FrameRouter(parts, this.#asking, this.#elsewhere, this.#filling, this.notebooks);
		this.shelf = new Shelving({
			...place,
			runs: () => turns.runs,
			wanted: () => {
				const wanted = (run: Run) =>
					this.view.shows(run.id) || run.delivery.awaited || this.#filling.fills(run);
				const whole = turns.runs.filter(wanted).map((run) => [run, "all"] as const);
				return new Map([...(this.strip?.parts ?? []), ...whole]);
			},
		});
		for (const signal of [changed, this.view.changed]) signal.subscribe(() => this.shelf.look());
	}

	get turns(): readonly Turn[] {
		return this.#turns.all;
	}

	/** All turns, also those that are not shown, each with the key of the turn in front of it. */
	get tree(): readonly { readonly turn: Turn; readonly parent: string | null }[] {
		return this.#turns.nodes;
	}

	get asides(): readonly Aside[] {
		return this.#turns.asides;
	}

	/** The run in the heatmap. */
	get shown(): Run | null {
		return this.#turns.shown;
	}

	/** The columns of the map: the shown run, and the turns in front of it as they were computed. */
	get strip(): Strip | null {
		const { shown } = this;
		const at = this.#turns.all.findIndex(({ run }) => run === shown);
		const earlier = this.#turns.all.slice(0, Math.max(0, at)).map(({ run }) => run);
		if (shown === null) this.#strip = null;
		else if (this.#strip?.isOf(shown, earlier) !== true) this.#strip = new Strip(shown, earlier);
		return this.#strip?.refresh() ?? null;
	}

	/** The run being written, if any: always the last turn's. */
	get live(): Run | null {
		return this.#turns.live;
	}

	/** The metric that was picked for the heatmap, by its id. */
	get metric(): string | null {
		return this.#offers.metric;
	}

	/** The metrics that can be picked. */
	get metrics(): readonly MetricInfo[] {
		return offered(this.server.metrics, this.shown);
	}

	/** The metric in the heatmap. */
	get mapped(): MetricInfo | null {
		return mapped(this.metrics, this.metric);
	}

	get notice(): Notice | null {
		return this.#notes.notice;
	}

	/** What a person should know about the server that answers now, until they put it away. */
	get moved(): string | null {
		return this.#notes.moved;
	}

	/** What came of a link with sliders, or that some are gone, until it is put away. */
	get slidersNote(): string | null {
		return this.#notes.sliders;
	}

	/** Words that a refused start gave back; the composer takes them. */
	get returned(): string | null {
		return this.#turns.returned;
	}

	/** What a reload should find: the turns that the server took, and the question of a start that it may have. */
	get keepable(): { turns: readonly Turn[]; asked: string | null } {
		const { chat } = this.notebooks;
		return chat === null ? this.#turns.keepable : { turns: this.#turns.pathTo(chat), asked: null };
	}

	/** Whether nobody has said or shown anything here yet. */
	get #idle(): boolean {
		const { all, asides, returned } = this.#turns;
		return !this.readOnly && all.length + asides.length === 0 && (returned ?? this.draft).trim() === "";
	}

	/** Whether the served model has no chat template: it continues a text and answers nothing. */
	get continues(): boolean {
		return this.server.continues;
	}

	/** Whether its source takes nothing at all: a recording plays. */
	get readOnly(): boolean {
		return this.server.readOnly !== null;
	}

	get can(): Can {
		const { readOnly } = this.server;
		return { ask: this.#asking.blocked, steer: readOnly, watch: readOnly };
	}

	/** Whether the last reply has a beginning and, as far as is known, not its end. */
	get canWriteOn(): boolean {
		return this.#asking.canWriteOn;
	}

	/** False when nothing was sent; then a notice says why. */
	ask(text: string, settings: Settings): boolean {
		return this.#asking.ask(text, settings);
	}

	regenerate(settings: Settings): boolean {
		return this.#asking.regenerate(settings);
	}

	/** Which of the turns in its place one is, from 0, and how many there are: those that it was written again as. */
	placeOf(turn: Turn): { at: number; of: number } {
		return this.#turns.place(turn.key);
	}

	/** Put the turn that stands so many places beside one on the page, with all behind it. */
	goBeside(turn: Turn, step: number): void {
		const key = this.#turns.beside(turn.key, step);
		// What is written now is always the last of the page.
		if (key === null || this.live !== null) return;
		const choose = (one: string) => () => {
			if (this.live !== null) return;
			this.#turns.choose(one);
			this.#onShown();
		};
		choose(key)();
		this.history.did({
			what: "another branch",
			place: `branch:${key}`,
			undo: choose(turn.key),
			redo: choose(key),
		});
	}

	writeOn(settings: Settings): void {
		this.#asking.writeOn(settings);
	}

	stop(): void {
		this.#asking.stop();
	}

	/** How the rows stand that a reply lacks because the engine had them in its cache. */
	fillingOf(run: Run): Filled {
		return this.#filling.of(run);
	}

	/** Compute the rows that a reply lacks because the engine had them in its cache. */
	fill(run: Run): void {
		this.#filling.begin(run);
	}

	/** Show the turns in front of a reply as its run has read them, or as they were written. */
	reread(run: Run, on: boolean): void {
		run.reread = on;
		if (on && !run.cached.none) this.#filling.begin(run);
		this.changed.changed();
	}

	newChat(): void {
		// Whoever asked elsewhere may want the reply to go on.
		if (this.#turns.last?.watched === false) this.stop();
		if (this.steering.run !== null) this.steering.detach(this.steering.run);
		this.#turns.clear();
		this.#asking.clear();
		this.notebooks.forgetChat();
		this.#filling.keepOnly(new Set());
		this.#delivery.clear();
		this.#notes.notice = null;
		this.history.clear();
		this.cursor.set(null);
		this.changed.changed();
	}

	restore(kept: Kept): void {
		this.#elsewhere.restore(kept);
	}

	/** Show a conversation that a recording brings; before there is a line to its source. */
	play(turns: readonly RecordedTurn[]): void {
		this.#elsewhere.play(turns);
	}

	watch(name: string): void {
		this.#elsewhere.watch(name);
	}

	watchLink(run: Run): string | null {
		return this.#elsewhere.watchLink(run);
	}

	/** Say this token to the server from now on. */
	sayToken(token: string): void {
		saveToken(tabStorage(), token);
		this.connection.sayToken(token);
	}

	/** Put an answer into the page that is no part of the conversation. */
	aside(said: string, answer: string): void {
		this.#turns.aside(said, answer);
		this.changed.changed();
	}

	openShared(text: string): void {
		this.#offers.openShared(text);
		this.changed.changed();
	}

	show(run: Run): void {
		this.looking.show(run.id);
	}

	pickMetric(id: string): void {
		const label = this.metrics.find((metric) => metric.id === id)?.label ?? id;
		this.looking.pickMetric(id, label);
	}

	dismiss(): void {
		this.#notes.dismiss("notice");
	}

	dismissMoved(): void {
		this.#notes.dismiss("moved");
	}

	dismissSlidersNote(): void {
		this.#notes.dismiss("sliders");
	}

	takeReturned(): string | null {
		return this.#turns.takeReturned();
	}

	/** Another reply is on the map. In a recording sliders stand as they stood in it. */
	#onShown(): void {
		const run = this.shown;
		if (this.readOnly && run !== null) {
			this.steering.attach(run);
			this.#delivery.resume(run);
		}
		this.cursor.set(null);
		this.changed.changed();
	}

	#onState(state: ConnectionState): void {
		if (state.kind !== "live") {
			this.latency = null;
			// Whether the server admitted the start is not known, and a run without a name cannot be resumed: the
			// words go back to the person, and a run that nobody watches ends by itself.
			this.#asking.takeBack("The connection was lost before the server took this.");
			this.#filling.lost();
			this.#delivery.lost();
			if (this.live !== null) this.steering.hold(this.live);
			if (state.kind === "given-up" && state.reason === "unauthorized") saveToken(tabStorage(), null);
		}
		this.changed.changed();
	}
}
