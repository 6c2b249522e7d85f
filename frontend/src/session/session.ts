// The page's state and what a person can do: ask, stop, ask again, begin anew, steer. Frames are routed
// here to the run they belong to. A turn that the server refuses leaves nothing behind but a sentence and
// the person's own words, back where they were typed.
import {
	browserClock,
	type Clock,
	Connection,
	type ConnectionListener,
	type ConnectionState,
} from "../connection/connection";
import type { OpenTransport } from "../connection/transport";
import type {
	ChatMessage,
	EngineStatus,
	Limits,
	MetricInfo,
	ModelInfo,
	Error as ServerError,
	ServerFrame,
	VectorInfo,
} from "../protocol/types.gen";
import { VectorApi } from "../steering/api";
import { VectorBuild } from "../steering/build";
import { watchSteering } from "../steering/live";
import { OWN_WAY } from "../steering/setting";
import { fitting, fromFragment, type Shared } from "../steering/share";
import { Steering } from "../steering/steering";
import { isRunFrame, RunState } from "../store/run";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import { CursorStore } from "./cursor";
import { type Settings, tabStorage, toSampling } from "./settings";
import { toStart } from "./watch";

export interface Turn {
	readonly key: string;
	readonly user: string;
	readonly run: RunState;
	/** Runs that wrote the beginning of the reply, before it was written on. */
	readonly before: readonly RunState[];
}

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

const STEERING_CODES = new Set(["stale_revision", "unknown_vector"]);

export class Session {
	readonly changed: Signal;
	readonly steering: Steering;
	readonly cursor: CursorStore;
	readonly connection: Connection;
	readonly api = new VectorApi();
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
	/** What came of a link with sliders, until it is put away. */
	linked: string | null = null;
	#shown: RunState | null = null;
	#runs = new Map<string, RunState>();
	/** What a start replaces, until the server admits it: restored on refusal. */
	#before: { id: string; turns: readonly Turn[]; shown: RunState | null } | null = null;
	#epoch: string | null = null;
	/** Whether the connection was lost while a reply was being written. */
	#cutOff = false;
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
		this.build = new VectorBuild(this.api, clock, tabStorage(), batch);
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
		this.steering = new Steering(
			(run, rev, steered) => this.connection.send({ type: "steer", run, rev, ...steered }),
			clock,
			batch,
		);
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
		if (this.connection.state.kind !== "live") return "There is no connection to the server now.";
		const engine = this.server.engine;
		if (engine?.state === "loading") return "The engine is still loading.";
		if (engine?.state !== "ready") return "The engine is not running.";
		return this.live === null ? null : "A reply is being written.";
	}

	ask(text: string, settings: Settings): boolean {
		return this.#start({ history: this.turns, user: text, before: [] }, settings);
	}

	/** Write the last reply again, with the present settings and strengths. */
	regenerate(settings: Settings): boolean {
		const last = this.turns.at(-1);
		if (last === undefined) return false;
		return this.#start({ history: this.turns.slice(0, -1), user: last.user, before: [] }, settings);
	}

	/** Whether the last reply has a beginning and, as far as is known, not its end. */
	get canWriteOn(): boolean {
		const last = this.turns.at(-1);
		if (last === undefined || this.connection.state.kind !== "live") return false;
		if (this.#writeOn?.run.live) return false;
		if (replyText(last).trim() === "") return false;
		const { run } = last;
		if (run.live) return run.run !== null;
		return run.finished?.reason === "cancelled" || run.finished?.reason === "length";
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
		this.linked =
			this.#shared === null ? "The sliders in this link cannot be read, so nothing was changed." : null;
		if (this.server.engine?.state === "ready") this.#applyShared();
		this.changed.changed();
	}

	dismissLinked(): void {
		this.linked = null;
		this.changed.changed();
	}

	stop(): void {
		const run = this.live;
		if (run?.run != null) this.connection.send({ type: "stop", run: run.run });
	}

	newChat(): void {
		this.stop();
		const live = this.live;
		if (live !== null) this.steering.detach(live);
		this.turns = [];
		this.asides = [];
		this.#before = null;
		this.#writeOn = null;
		this.#runs.clear();
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
		this.#start({ history: this.turns.slice(0, -1), user, before, key }, settings);
	}

	/** Begin the turn after `history`; with runs before it, go on from the end of what they wrote. */
	#start(
		turn: Pick<Turn, "user" | "before"> & { history: readonly Turn[]; key?: string },
		settings: Settings,
	): boolean {
		if (this.blocked !== null) return false;
		const { history, user, before } = turn;
		this.#count += 1;
		const id = `c${this.#count}`;
		const steered = this.steering.steered();
		const special = new Set(this.server.model?.special_ids);
		const run = new RunState(id, this.clock.now(), special, steered, this.batch);
		const sent = this.connection.send({
			type: "start",
			id,
			messages: conversation(history, user, settings.system, textOf(before)),
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
		});
		if (!sent) return false;
		this.#before = { id, turns: this.turns, shown: this.#shown };
		this.turns = [...history, { key: turn.key ?? id, user, run, before }];
		this.#shown = run;
		this.#runs.set(id, run);
		this.steering.attach(run);
		this.notice = null;
		this.cursor.set(null);
		this.changed.changed();
		return true;
	}

	/** Another life of the server, or another server, answers: its runs are not ours, our conversation is. */
	#moved(name: string): void {
		const what =
			name === this.server.name ? "The server was restarted." : `You are now on another server (${name}).`;
		const kept = this.turns.length > 0 ? " Your conversation was kept." : "";
		const ended = this.#cutOff ? " The reply that was being written ended there." : "";
		this.moved = `${what}${kept}${ended}`;
	}

	#onState(state: ConnectionState): void {
		if (state.kind !== "live") {
			this.latency = null;
			this.#cutOff ||= this.live !== null;
			// A start that was never admitted wrote nothing: it goes back to the person.
			if (this.#before !== null) this.#takeBack("The connection was lost before the server took this.");
			this.#writeOn = null;
			this.live?.lose();
			for (const turn of this.turns) this.steering.ended(turn.run);
		}
		this.changed.changed();
	}

	#onFrame(frame: ServerFrame): void {
		if (isRunFrame(frame)) {
			this.#onRunFrame(frame);
			return;
		}
		if (frame.type === "welcome") {
			if (frame.epoch !== this.#epoch) {
				this.#runs.clear();
				if (this.#epoch !== null) this.#moved(frame.name);
			}
			this.#epoch = frame.epoch;
			this.#cutOff = false;
			const { name, engine, model, metrics, vectors, limits } = frame;
			this.server = { ...this.server, name, engine, model, vectors, limits };
			this.#knowMetrics(metrics);
			if (engine.state === "ready") this.#knowVectors();
		} else if (frame.type === "engine") {
			const { state, stage, progress, model, metrics, vectors } = frame;
			this.server = {
				...this.server,
				engine: { state, stage, progress },
				model: model ?? this.server.model,
				vectors: vectors.length > 0 || state === "ready" ? vectors : this.server.vectors,
			};
			if (metrics.length > 0 || state === "ready") this.#knowMetrics(metrics);
			if (state === "ready") this.#knowVectors();
		} else if (frame.type === "error") {
			this.#onError(frame);
		}
		this.changed.changed();
	}

	#onRunFrame(frame: Extract<ServerFrame, { run: string; seq: number }>): void {
		const run = frame.type === "started" ? this.#runs.get(frame.id) : this.#runs.get(frame.run);
		if (run === undefined) {
			// The chat it belonged to is gone; it need not be written to its end.
			if (frame.type === "started") this.connection.send({ type: "stop", run: frame.run });
			return;
		}
		const wasLive = run.live;
		run.take(frame, this.clock.now());
		// A run that the page can no longer show rightly need not be written to its end.
		if (wasLive && !run.live && frame.type !== "finished") {
			this.connection.send({ type: "stop", run: frame.run });
			this.steering.ended(run);
			this.changed.changed();
		}
		if (frame.type === "started") {
			this.#runs.set(frame.run, run);
			if (this.#before?.id === frame.id) this.#before = null;
			this.steering.started(run);
			this.changed.changed();
		} else if (frame.type === "finished") {
			this.#runs.delete(run.id);
			this.#runs.delete(frame.run);
			this.steering.ended(run);
			const waiting = this.#writeOn;
			if (waiting?.run === run) {
				this.#writeOn = null;
				// A reply that came to its own end meanwhile has nothing to go on with.
				if (this.canWriteOn) this.#goOn(waiting.settings);
			}
			this.changed.changed();
		} else if (frame.type === "applied" || run.rows.changes.length === 1) {
			// The first rows put revision 0 in force; later ones change nothing that a slider says.
			this.steering.changed.changed();
		}
	}

	#onError(frame: ServerError): void {
		if (frame.id !== null && this.#before?.id === frame.id) {
			this.#takeBack(frame.message);
			return;
		}
		if (STEERING_CODES.has(frame.code) || /^(strengths|settings)/.test(frame.field ?? "")) {
			this.#notify({ place: "steering", message: frame.message });
			return;
		}
		const run = frame.run === null ? undefined : this.#runs.get(frame.run);
		if (run !== undefined) {
			run.fail(frame.code, frame.message);
			this.steering.ended(run);
		} else {
			this.#notify({ place: "page", message: frame.message });
		}
	}

	#takeBack(message: string): void {
		const before = this.#before;
		if (before === null) return;
		this.#before = null;
		const refused = this.turns.at(-1);
		this.#runs.delete(before.id);
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

	#knowVectors(): void {
		this.steering.keepOnly(new Set(this.server.vectors.map((vector) => vector.id)));
		this.#applyShared();
	}

	/** A link says where every slider stands: those that it does not name go to 0. */
	#applyShared(): void {
		const shared = this.#shared;
		if (shared === null) return;
		this.#shared = null;
		const layers = this.server.model?.layers ?? 0;
		for (const vector of this.server.vectors) {
			const wanted = shared.find(({ id }) => id === vector.id);
			const { setting, strength } =
				wanted === undefined ? { setting: OWN_WAY, strength: 0 } : fitting(vector, wanted, layers);
			this.steering.act(vector.id, setting, strength);
		}
		const known = new Set(this.server.vectors.map(({ id }) => id));
		const unknown = shared.filter(({ id }) => !known.has(id)).map(({ id }) => id);
		const missing = `This server has no vector ${unknown.join(", ")}, so that part of the link was left out.`;
		this.linked = unknown.length > 0 ? missing : null;
	}

	#notify(notice: Notice): void {
		this.notice = notice;
		this.changed.changed();
	}
}

/** What the runs of one reply wrote, one after the other. */
function textOf(runs: readonly RunState[]): string {
	return runs.map((run) => run.replyText()).join("");
}

export function replyText(turn: Turn): string {
	return textOf([...turn.before, turn.run]);
}

function conversation(
	history: readonly Turn[],
	user: string,
	system: string,
	beginning: string,
): ChatMessage[] {
	const messages: ChatMessage[] = [];
	if (system.trim() !== "") messages.push({ role: "system", content: system });
	for (const turn of history) {
		messages.push({ role: "user", content: turn.user });
		messages.push({ role: "assistant", content: replyText(turn) });
	}
	messages.push({ role: "user", content: user });
	if (beginning !== "") messages.push({ role: "assistant", content: beginning });
	return messages;
}
