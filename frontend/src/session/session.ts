// The page's state and what a person can do: ask, stop, ask again, begin anew, steer. Frames are routed
// here to the run they belong to. A turn that the server refuses leaves nothing behind but a sentence and
// the person's own words, back where they were typed. A turn that it took outlives the line and the page:
// `Delivery` brings it back.
import {
	browserClock,
	type Clock,
	Connection,
	type ConnectionListener,
	type ConnectionState,
} from "../connection/connection";
import type { OpenTransport } from "../connection/transport";
import type {
	EngineStatus,
	Limits,
	MetricInfo,
	ModelInfo,
	Error as ServerError,
	ServerFrame,
	Start,
	VectorInfo,
} from "../protocol/types.gen";
import { VectorApi } from "../steering/api";
import { VectorBuild } from "../steering/build";
import { applyShared } from "../steering/link";
import { watchSteering } from "../steering/live";
import { fromFragment, type Shared } from "../steering/share";
import { Steering } from "../steering/steering";
import { isRunFrame, type RunFrame, RunState } from "../store/run";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import { awaySentence, movedSentence } from "./away";
import { conversation, readPrompt, replyText, type Turn, textOf } from "./conversation";
import { CursorStore } from "./cursor";
import { Delivery } from "./delivery";
import { goneSentence, missed } from "./gone";
import { type Kept, RUN_NAME, revive, reviveText } from "./kept";
import { type Settings, toSampling } from "./settings";
import { sizeProblem } from "./size";
import { tabStorage } from "./storage";
import { saveToken } from "./token";
import { toStart } from "./watch";

export type { Turn } from "./conversation";

/** Something said on the page only, after so many turns. */
export interface Aside {
	readonly key: string;
	readonly after: number;
	readonly said: string;
	readonly answer: string;
}

/** A sentence and the part of the page that it belongs to. */
export interface Notice {
	place: "page" | "composer" | "steering";
	message: string;
}

export interface ServerInfo {
	name: string;
	engine: EngineStatus | null;
	model: ModelInfo | null;
	metrics: MetricInfo[];
	vectors: VectorInfo[];
	limits: Limits | null;
}

const STEERING_CODES = new Set(["unknown_vector", "steering_failed"]);

export class Session {
	readonly changed: Signal;
	readonly steering: Steering;
	readonly cursor: CursorStore;
	readonly connection: Connection;
	readonly api: VectorApi;
	readonly build: VectorBuild;
	server: ServerInfo = { name: "", engine: null, model: null, metrics: [], vectors: [], limits: null };
	turns: readonly Turn[] = [];
	asides: readonly Aside[] = [];
	notice: Notice | null = null;
	latency: number | null = null;
	metric: string | null = null;
	/** Words that a refused start gave back; the composer takes them and clears this. */
	returned: string | null = null;
	/** What a person should know about the server that answers now, until they put it away. */
	moved: string | null = null;
	/** What came of a link with sliders, or that some are gone, until it is put away. */
	slidersNote: string | null = null;
	/** The life of the server that answers now. */
	epoch: string | null = null;
	#shown: RunState | null = null;
	#delivery: Delivery;
	/** What a start replaces, until the server admits it: restored on refusal. */
	#before: { run: RunState; turns: readonly Turn[]; shown: RunState | null } | null = null;
	/** Starts of chats that were put away before the server admitted them. */
	#putAway = new Set<string>();
	/** The engine was ready before, in this life of the server. */
	#wasReady = false;
	/** Sliders of a link, until the server's vectors are known. */
	#shared: readonly Shared[] | null = null;
	/** A run that ends now so that its reply can be written on. */
	#writeOn: { run: RunState; settings: Settings } | null = null;
	#count = 0;

	constructor(
		open: OpenTransport,
		token: string | null,
		private readonly batch: FrameBatch = pageBatch,
		private readonly clock: Clock = browserClock,
	) {
		this.changed = new Signal(batch);
		this.cursor = new CursorStore(batch);
		const listener: ConnectionListener = {
			onState: (state) => this.#onState(state),
			onFrame: (frame) => this.#onFrame(frame),
			onLatency: (ms) => {
				this.latency = ms;
				this.changed.changed();
			},
			onBadFrame: (message) => this.#notify({ place: "page", message }),
		};
		this.connection = new Connection(open, listener, token, clock);
		this.#delivery = new Delivery((frame) => this.connection.send(frame), clock);
		this.api = new VectorApi(() => this.connection.token);
		this.build = new VectorBuild(this.api, clock, tabStorage(), batch);
		this.steering = new Steering(
			(run, rev, steered) => this.connection.send({ type: "steer", run, rev, ...steered }),
			clock,
			batch,
		);
	}

	/** Whether the served model has no chat template: it continues a text and answers nothing. */
	get continues(): boolean {
		return this.server.model?.chat === "none";
	}

	/** The run in the heatmap. */
	get shown(): RunState | null {
		return this.#shown;
	}

	/** The run being written, if any: always the last turn's. */
	get live(): RunState | null {
		const run = this.turns.at(-1)?.run;
		return run?.live ? run : null;
	}

	/** Why nothing can be sent now, as a sentence, or null when it can. */
	get blocked(): string | null {
		return this.#away ?? (this.live === null ? null : "A reply is being written.");
	}

	/** Why the server takes nothing now, as a sentence, or null when it does. */
	get #away(): string | null {
		return awaySentence(this.connection.state, this.server.engine, this.#wasReady);
	}

	ask(text: string, settings: Settings): boolean {
		// What blocks is said beside the box already.
		const what = this.blocked === null ? "" : null;
		return this.#start({ history: this.turns, user: text, before: [] }, settings, what);
	}

	/** Write the last reply again, with the present settings and strengths. */
	regenerate(settings: Settings): boolean {
		const last = this.turns.at(-1);
		if (last === undefined) return false;
		const turn = { history: this.turns.slice(0, -1), user: last.user, before: [] };
		return this.#start(turn, settings, "The reply was not written again. ");
	}

	/** What a reload should find: the turns that the server took, and the question of a start that it may have. */
	get keepable(): { turns: readonly Turn[]; asked: string | null } {
		if (this.#before === null) return { turns: this.turns, asked: null };
		const { turns } = this.#before;
		const asked = turns.length < this.turns.length ? (this.turns.at(-1)?.user ?? null) : null;
		return { turns, asked };
	}

	/** Take up a conversation that a reload left: its texts now, the rest when the server answers. */
	restore({ turns, asked, cut }: Kept): void {
		this.turns = turns.map(({ user, before, watched, run: kept }, index) => {
			const key = this.#newId();
			const run = revive(kept, key, index === turns.length - 1, this.batch);
			if (run.run !== null && (run.live || run.finished !== null)) this.#delivery.follow(run);
			const beginning = before === "" ? [] : [reviveText(before, `${key}.0`, this.batch)];
			return { key, user, run, before: beginning, watched };
		});
		this.#shown = this.turns.at(-1)?.run ?? null;
		const { live } = this;
		if (live !== null) this.steering.attach(live);
		this.returned = asked;
		if (asked !== null) {
			this.notice = {
				place: "composer",
				message: "The page was reloaded before the server took this.",
			};
		} else if (cut) {
			this.notice = {
				place: "page",
				message: "The conversation is too long to be kept whole over a reload. Its beginning is gone.",
			};
		}
		this.changed.changed();
	}

	/** Watch a reply that was asked for elsewhere, by its run's name. */
	watch(name: string): void {
		if (!RUN_NAME.test(name)) {
			this.#notify({ place: "page", message: "The address names no reply that could be watched." });
			return;
		}
		const known = this.#delivery.find(name);
		if (known !== undefined) {
			this.show(known);
			return;
		}
		if (this.live !== null) {
			const message = "A reply is being written here. Open the link in a tab of its own.";
			this.#notify({ place: "page", message });
			return;
		}
		const key = this.#newId();
		const run = new RunState(key, null, new Set(), undefined, this.batch);
		run.run = name;
		run.epoch = this.epoch;
		run.status = "streaming";
		run.away = true;
		this.turns = [...this.turns, { key, user: "", run, before: [], watched: true }];
		this.#shown = run;
		this.#delivery.follow(run);
		this.steering.attach(run);
		if (this.connection.state.kind === "live") this.#delivery.resume(run);
		this.changed.changed();
	}

	/** Address under which another tab watches a reply, while the server has it; null where it has not. */
	watchLink(run: RunState): string | null {
		const there = run.run !== null && run.epoch === this.epoch && run.gone === null && run.status !== "lost";
		return there && this.connection.state.kind === "live" ? `#watch=${run.run}` : null;
	}

	/** Say this token to the server from now on. */
	sayToken(token: string): void {
		saveToken(tabStorage(), token);
		this.connection.sayToken(token);
	}

	/** Whether the last reply has a beginning and, as far as is known, not its end. */
	get canWriteOn(): boolean {
		const last = this.turns.at(-1);
		if (last === undefined || this.#away !== null || this.#writeOn?.run.live) return false;
		return last.run.live ? last.run.run !== null && replyText(last).trim() !== "" : this.#unfinished;
	}

	/** The last reply has a beginning and ended before its own end. */
	get #unfinished(): boolean {
		const last = this.turns.at(-1);
		const reason = last?.run.finished?.reason;
		return (
			last !== undefined && replyText(last).trim() !== "" && (reason === "cancelled" || reason === "length")
		);
	}

	/**
	 * Compute the last reply's text so far anew, with the present sliders, and write it on. A reply that is still
	 * being written is stopped first, and what came until then is kept.
	 */
	writeOn(settings: Settings): void {
		const run = this.turns.at(-1)?.run;
		if (run === undefined || !this.canWriteOn) return;
		if (run.live) {
			this.#writeOn = { run, settings };
			this.stop();
			this.changed.changed();
		} else {
			this.#goOn(settings);
		}
	}

	/** Put an answer into the page that is no part of the conversation. */
	aside(said: string, answer: string): void {
		this.#count += 1;
		this.asides = [...this.asides, { key: `a${this.#count}`, after: this.turns.length, said, answer }];
		this.changed.changed();
	}

	/** Take the sliders of a link: now, or as soon as the server's vectors are known. */
	openShared(text: string): void {
		this.#shared = fromFragment(text);
		this.slidersNote =
			this.#shared === null ? "The sliders in this link cannot be read, so nothing was changed." : null;
		if (this.server.engine?.state === "ready") this.#applyShared();
		this.changed.changed();
	}

	dismissSlidersNote(): void {
		this.slidersNote = null;
		this.changed.changed();
	}

	/** End the reply that is being written; over a line that is down, as soon as it is back. */
	stop(): void {
		const run = this.live;
		if (run?.run == null) return;
		run.stopAsked = true;
		this.connection.send({ type: "stop", run: run.run });
		this.changed.changed();
	}

	newChat(): void {
		// Whoever asked elsewhere may want the reply to go on.
		if (this.turns.at(-1)?.watched === false) this.stop();
		if (this.steering.run !== null) this.steering.detach(this.steering.run);
		this.turns = [];
		this.asides = [];
		if (this.#before !== null) this.#putAway.add(this.#before.run.id);
		this.#before = null;
		this.#writeOn = null;
		this.#delivery.clear();
		this.#shown = null;
		this.notice = null;
		this.cursor.set(null);
		this.changed.changed();
	}

	show(run: RunState): void {
		this.#shown = run;
		this.cursor.set(null);
		this.changed.changed();
	}

	pickMetric(id: string): void {
		this.metric = id;
		this.changed.changed();
	}

	dismiss(): void {
		this.notice = null;
		this.changed.changed();
	}

	dismissMoved(): void {
		this.moved = null;
		this.changed.changed();
	}

	takeReturned(): string | null {
		const text = this.returned;
		this.returned = null;
		return text;
	}

	#goOn(settings: Settings): void {
		const last = this.turns.at(-1)!;
		const { key, user } = last;
		const before = [...last.before, last.run];
		const turn = { history: this.turns.slice(0, -1), user, before, key };
		this.#start(turn, settings, "The reply was not written on. ");
	}

	/**
	 * Begin the turn after `history`; with runs before it, go on from the end of what they wrote. False when that
	 * cannot be; then it is said why, after `what` did not happen, unless that is null.
	 */
	#start(
		turn: Pick<Turn, "user" | "before"> & { history: readonly Turn[]; key?: string },
		settings: Settings,
		what: string | null,
	): boolean {
		const refuse = (why: string) => {
			if (what !== null) this.#notify({ place: "composer", message: `${what}${why}` });
			return false;
		};
		if (this.blocked !== null) return refuse(this.blocked);
		const { history, user, before } = turn;
		const id = this.#newId();
		const steered = this.steering.steered();
		const run = new RunState(id, this.clock.now(), new Set(), steered, this.batch);
		const start: Start = {
			type: "start",
			id,
			messages: conversation(history, user, this.continues ? "" : settings.system, textOf(before)),
			sampling: toSampling(settings),
			...steered,
			write_on: before.length > 0,
			...watchSteering(
				toStart(this.server.metrics, settings.watch),
				this.server.metrics,
				Object.keys(steered.strengths),
				this.server.vectors.map(({ id }) => id),
			),
			prompt_rows: true,
		};
		const problem = sizeProblem(start, this.server.limits);
		if (problem !== null) return refuse(problem);
		if (!this.connection.send(start)) return refuse("There is no connection to the server now.");
		this.#before = { run, turns: this.turns, shown: this.#shown };
		this.turns = [...history, { key: turn.key ?? id, user, run, before, watched: false }];
		this.#shown = run;
		this.steering.attach(run);
		this.notice = null;
		this.cursor.set(null);
		this.changed.changed();
		return true;
	}

	#onState(state: ConnectionState): void {
		if (state.kind !== "live") {
			this.latency = null;
			// Whether the server admitted the start is not known, and a run without a name cannot be resumed: the
			// words go back to the person, and a run that nobody watches ends by itself.
			if (this.#before !== null) this.#takeBack("The connection was lost before the server took this.");
			this.#delivery.lost();
			if (this.live !== null) this.steering.hold(this.live);
			if (state.kind === "given-up" && state.reason === "unauthorized") saveToken(tabStorage(), null);
		}
		this.changed.changed();
	}

	#onFrame(frame: ServerFrame): void {
		if (isRunFrame(frame)) {
			this.#onRunFrame(frame);
			return;
		}
		if (frame.type === "welcome") {
			if (frame.epoch !== this.epoch) {
				if (this.epoch !== null) this.moved = movedSentence(this.server.name, frame.name, this);
				this.#wasReady = false;
			}
			this.epoch = frame.epoch;
			const { name, engine, model, metrics, vectors, limits } = frame;
			this.server = { ...this.server, name, engine, model, limits };
			this.steering.limits = limits;
			this.#wasReady ||= engine.state === "ready";
			this.#knowOffers(metrics, vectors, engine.state === "ready");
			this.#delivery.back(frame.epoch);
			this.#knowEnds();
		} else if (frame.type === "engine") {
			const { state, stage, progress, model, metrics, vectors } = frame;
			this.server = {
				...this.server,
				engine: { state, stage, progress },
				model: model ?? this.server.model,
			};
			const ready = state === "ready";
			this.#wasReady ||= ready;
			this.#knowOffers(
				metrics.length > 0 || ready ? metrics : this.server.metrics,
				vectors.length > 0 || ready ? vectors : this.server.vectors,
				ready,
			);
		} else if (frame.type === "error") {
			this.#onError(frame);
		}
		this.changed.changed();
	}

	#onRunFrame(frame: RunFrame): void {
		// By the server's name first: a run that was asked for elsewhere may have any `id`.
		const starting = frame.type === "started" ? this.#startingRun(frame.id) : null;
		const run = this.#delivery.find(frame.run) ?? starting;
		if (run == null) {
			// The chat it belonged to is gone; it need not be written to its end.
			if (frame.type === "started" && this.#putAway.delete(frame.id)) {
				this.connection.send({ type: "stop", run: frame.run });
			}
			return;
		}
		if (frame.type === "started" || frame.type === "resumed") run.know(this.server.model);
		const wasLive = run.live;
		const { queued } = run;
		const before = run.ids.length;
		run.take(frame, this.clock.now());
		// A run that the page can no longer show rightly need not be written to its end.
		if (wasLive && !run.live && frame.type !== "finished") {
			this.connection.send({ type: "stop", run: frame.run });
			this.steering.ended(run);
			this.changed.changed();
		}
		if (run === starting) {
			run.epoch = this.epoch;
			this.#delivery.follow(run);
			this.#before = null;
			this.#letGo();
			this.steering.started(run);
		}
		this.#delivery.took(run, frame);
		switch (frame.type) {
			case "started":
				this.#fillIn(run);
				this.changed.changed();
				break;
			case "resumed":
				this.steering.resumed(run, frame.rev, frame);
				this.changed.changed();
				break;
			case "finished":
				this.#onFinished(run);
				break;
			case "applied":
				// Somebody else steers it: how, is said by an answer to `resume`.
				if (this.steering.applied(run, frame.rev)) this.#delivery.resume(run);
				this.steering.changed.changed();
				break;
			case "tokens":
				// The turn waits no longer.
				if (run.ids.length > 0 && before === 0) this.changed.changed();
				break;
			default:
				// The first rows put revision 0 in force; later ones change nothing that a slider says.
				if (run.rows.changes.length === 1) this.steering.changed.changed();
				if (run.queued !== queued) this.changed.changed();
		}
	}

	/** Of runs that a newer one replaced or goes on from, nothing but the text is shown any more. */
	#letGo(): void {
		this.#delivery.keepOnly(new Set(this.turns.map(({ run }) => run)));
		for (const { before } of this.turns) for (const run of before) run.dropNumbers();
	}

	#startingRun(id: string): RunState | null {
		return this.#before?.run.id === id ? this.#before.run : null;
	}

	#onFinished(run: RunState): void {
		this.steering.ended(run);
		const waiting = this.#writeOn;
		if (waiting?.run === run) {
			this.#writeOn = null;
			// A reply that came to its own end meanwhile has nothing to go on with.
			if (this.#unfinished) this.#goOn(waiting.settings);
		}
		this.changed.changed();
	}

	/** What was asked elsewhere is known by its prompt. */
	#fillIn(run: RunState): void {
		const turn = this.turns.find((one) => one.run === run);
		if (turn === undefined || !turn.watched || turn.user !== "") return;
		const read = readPrompt(run.prompt, run.specialIds, run.continues);
		const text = (reply: string) => reviveText(reply, this.#newId(), this.batch);
		const first = this.turns[0] === turn;
		const earlier = (first ? read.history : []).map(({ user, reply }): Turn => {
			const said = text(reply);
			return { key: said.id, user, run: said, before: [], watched: true };
		});
		const before = read.beginning === "" ? [] : [text(read.beginning)];
		this.turns = [
			...earlier,
			...this.turns.map((one) => (one === turn ? { ...turn, user: read.user, before } : one)),
		];
	}

	#onError(frame: ServerError): void {
		if (frame.id !== null && this.#startingRun(frame.id) !== null) {
			this.#takeBack(frame.message);
			return;
		}
		// Of a start that was put away nobody need hear.
		if (frame.id !== null && this.#putAway.delete(frame.id)) return;
		const run = frame.run === null ? undefined : this.#delivery.find(frame.run);
		switch (frame.code) {
			case "unknown_run":
			case "other_epoch":
				// Of a run that was put away nobody need hear.
				if (run === undefined) return;
				this.#delivery.unavailable(run, frame.code);
				this.#knowEnds();
				return;
			case "rate_limited":
				if (run === undefined) break;
				this.#delivery.later(run);
				this.steering.refused(run);
				return;
			case "stale_revision":
				if (run === undefined) break;
				this.steering.stale(run);
				this.#delivery.resume(run);
				return;
		}
		if (STEERING_CODES.has(frame.code) || /^(strengths|settings)/.test(frame.field ?? "")) {
			this.#notify({ place: "steering", message: frame.message });
		} else if (run === undefined) {
			this.#notify({ place: "page", message: frame.message });
		} else if (run.complete) {
			// Only rows are still asked of it, and the map shows which are missing.
			this.#delivery.unavailable(run, frame.code);
		} else {
			run.fail(frame.code, frame.message);
			this.steering.ended(run);
		}
	}

	/** Runs may have ended without their last frame: none of them is steered or written on. */
	#knowEnds(): void {
		for (const { run } of this.turns) if (!run.live) this.steering.ended(run);
		if (this.#writeOn !== null && !this.#writeOn.run.live) this.#writeOn = null;
	}

	#newId(): string {
		this.#count += 1;
		return `c${this.#count}`;
	}

	#takeBack(message: string): void {
		const before = this.#before;
		if (before === null) return;
		this.#before = null;
		const refused = this.turns.at(-1);
		// A refused regeneration puts the old reply back, so its question must not also return as text.
		if (refused !== undefined && before.turns.length < this.turns.length) this.returned = refused.user;
		this.turns = before.turns;
		this.#shown = before.shown;
		if (refused !== undefined) this.steering.detach(refused.run);
		this.#notify({ place: "composer", message });
	}

	/** A metric that is as it was stays the same object: a new one would have the map fitted anew. */
	#knowMetrics(metrics: readonly MetricInfo[]): void {
		const before = new Map(this.server.metrics.map((metric) => [JSON.stringify(metric), metric]));
		const known = metrics.map((metric) => before.get(JSON.stringify(metric)) ?? metric);
		this.server = { ...this.server, metrics: known };
		if (known.some((metric) => metric.id === this.metric)) return;
		this.metric = (known.find((metric) => metric.error === null) ?? known[0])?.id ?? null;
	}

	/** What can be watched and steered now. While an engine is not ready its vectors may be still to come. */
	#knowOffers(metrics: readonly MetricInfo[], vectors: VectorInfo[], ready: boolean): void {
		const acts = (id: string) => this.steering.get(id) !== 0;
		const gone = missed(this.server.vectors, vectors, acts, this.metric);
		this.server = { ...this.server, vectors };
		this.#knowMetrics(metrics);
		if (!ready) return;
		this.steering.keepOnly(new Set(vectors.map(({ id }) => id)));
		const shown = this.server.metrics.find(({ id }) => id === this.metric);
		this.slidersNote = goneSentence(gone, shown) ?? this.slidersNote;
		this.#applyShared();
	}

	#applyShared(): void {
		const shared = this.#shared;
		if (shared === null) return;
		this.#shared = null;
		this.slidersNote = applyShared(
			shared,
			this.steering,
			this.server.vectors,
			this.server.model?.layers ?? 0,
		);
	}

	#notify(notice: Notice): void {
		this.notice = notice;
		this.changed.changed();
	}
}
