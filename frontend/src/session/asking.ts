// How a reply is asked for, written again, written on and stopped. A turn that the server refuses leaves nothing
// behind but a sentence and the person's own words, back where they were typed.
import type { ModelInfo, Start } from "../protocol/types.gen";
import { watchSteering } from "../steering/live";
import { Run } from "../store/run";
import { Strip } from "../store/strip";
import { conversation, replyText, type Turn, textOf } from "./conversation";
import type { Parts } from "./parts";
import { adapterOf, type Settings, toSampling } from "./settings";
import { sizeProblem } from "./size";
import { toTemplate } from "./template";
import { toStart } from "./watch";

/** A turn to be: the question after `history`, and the runs that wrote the beginning of its reply. */
type Next = Pick<Turn, "user" | "before"> & { history: readonly Turn[]; key?: string };

export class Asking {
	/** A run that ends now so that its reply can be written on. */
	#writeOn: { run: Run; settings: Settings } | null = null;

	constructor(
		private readonly parts: Pick<
			Parts,
			| "connection"
			| "server"
			| "turns"
			| "notes"
			| "steering"
			| "edits"
			| "cursor"
			| "clock"
			| "batch"
			| "changed"
		>,
	) {}

	/** Why the server takes nothing now, as a sentence, or null when it does. */
	get away(): string | null {
		const { server, connection } = this.parts;
		return server.away(connection.state);
	}

	/** Why nothing can be sent now, as a sentence, or null when it can. */
	get blocked(): string | null {
		const { live } = this.parts.turns;
		if (live?.origin === "notebook") {
			return this.away ?? "A notebook's text is being written. When it has ended, you can begin a chat here.";
		}
		return this.away ?? (live === null ? null : "A reply is being written.");
	}

	ask(text: string, settings: Settings): boolean {
		// What blocks is said beside the box already.
		const what = this.blocked === null ? "" : null;
		// What a notebook asked has no messages that a chat could go on from.
		const history = this.parts.turns.notebook ? [] : this.parts.turns.all;
		return this.#start({ history, user: text, before: [] }, settings, what);
	}

	/** Write the last reply again, with the present settings and strengths. */
	regenerate(settings: Settings): boolean {
		const { all, last } = this.parts.turns;
		if (last === undefined || this.parts.turns.notebook) return false;
		const turn = { history: all.slice(0, -1), user: last.user, before: [] };
		return this.#start(turn, settings, "The reply was not written again. ");
	}

	/** Whether the last reply has a beginning and, as far as is known, not its end. */
	get canWriteOn(): boolean {
		const { last, unfinished } = this.parts.turns;
		if (
			last === undefined ||
			this.parts.turns.notebook ||
			this.away !== null ||
			this.#writeOn?.run.delivery.live
		)
			return false;
		return last.run.delivery.live ? last.run.name !== null && replyText(last).trim() !== "" : unfinished;
	}

	/**
	 * Compute the last reply's text so far anew, with the present sliders, and write it on. A reply that is still
	 * being written is stopped first, and what came until then is kept.
	 */
	writeOn(settings: Settings): void {
		const run = this.parts.turns.last?.run;
		if (run === undefined || !this.canWriteOn) return;
		if (run.delivery.live) {
			this.#writeOn = { run, settings };
			this.stop();
		} else {
			this.#goOn(settings);
		}
	}

	/** End the reply that is being written; over a line that is down, as soon as it is back. */
	stop(): void {
		const run = this.parts.turns.live;
		if (run === null || run.name === null) return;
		run.delivery.stopAsked = true;
		this.parts.connection.send({ type: "stop", run: run.name });
		this.parts.changed.changed();
	}

	/** The start that waits, if any, was not taken by the server, for this reason. */
	takeBack(message: string): void {
		const { turns, steering, notes } = this.parts;
		const run = turns.takeBack();
		if (run === null) return;
		steering.detach(run);
		notes.notify("composer", message);
	}

	/** A run has come to its end: what was to be written on begins now. */
	finished(run: Run): void {
		const waiting = this.#writeOn;
		if (waiting?.run !== run) return;
		this.#writeOn = null;
		// A reply that came to its own end meanwhile has nothing to go on with.
		if (this.parts.turns.unfinished) this.#goOn(waiting.settings);
	}

	/** Runs may have ended without their last frame: none of them is written on. */
	forgetEnded(): void {
		if (this.#writeOn !== null && !this.#writeOn.run.delivery.live) this.#writeOn = null;
	}

	/** The conversation was put away. */
	clear(): void {
		this.#writeOn = null;
	}

	#goOn(settings: Settings): void {
		const { all, last } = this.parts.turns;
		const { key, user, before, run } = last!;
		const turn = { history: all.slice(0, -1), user, before: [...before, run], key };
		this.#start(turn, settings, "The reply was not written on. ");
	}

	/**
	 * Begin a turn; with runs before it, go on from the end of what they wrote. False when that cannot be; then it is
	 * said why, after `what` did not happen, unless that is null.
	 */
	#start(next: Next, settings: Settings, what: string | null): boolean {
		const { server, connection, turns, notes, steering, cursor, clock, batch, changed } = this.parts;
		const refuse = (why: string) => {
			if (what !== null) notes.notify("composer", `${what}${why}`);
			return false;
		};
		if (this.blocked !== null) return refuse(this.blocked);
		const { history, user, before } = next;
		const id = turns.newId();
		const run = new Run(id, { sentAt: clock.now(), steered: steering.steered(), batch });
		const start = this.#startFrame(run, next, settings);
		const problem = sizeProblem(start, server.limits);
		if (problem !== null) return refuse(problem);
		if (!connection.send(start)) return refuse("There is no connection to the server now.");
		run.asked = start;
		run.sampling = start.sampling ?? null;
		run.template = start.template ?? {};
		run.began = run.steered;
		turns.begin([...history, { key: next.key ?? id, user, run, before, watched: false }]);
		steering.attach(run);
		notes.notice = null;
		cursor.set(null);
		changed.changed();
		return true;
	}

	#startFrame({ id, steered }: Run, { history, user, before }: Next, settings: Settings): Start {
		const { adapters, continues, metrics, model, vectors } = this.parts.server;
		const { chosen } = this.parts.edits;
		const start: Start = {
			type: "start",
			id,
			messages: conversation(history, user, continues ? "" : settings.system, textOf(before)),
			adapter: adapterOf(settings, adapters),
			...(chosen.length === 0 ? {} : { edits: chosen }),
			sampling: toSampling(settings),
			...steered,
			write_on: before.length > 0,
			template: toTemplate(model?.template ?? [], settings.template),
			...watchSteering(
				toStart(metrics, settings.watch),
				metrics,
				Object.keys(steered.strengths),
				vectors.map((vector) => vector.id),
			),
			prompt_rows: true,
		};
		// What is written on is read again on purpose, under the present sliders.
		return { ...start, rows_from: before.length > 0 ? 0 : rowsFrom(start, history, model) };
	}
}

/** Bytes of rows that are worth not being sent again. A short conversation comes whole: to a second tab, and after a reload. */
const WORTH_BYTES = 2 ** 20;

/**
 * From which position on rows are wanted of a turn: those in front are shown as the turns before computed them. The
 * prompt of the last turn is the beginning of the next one's for certain, where nothing in it has changed; what its
 * reply is made into depends on the template.
 */
function rowsFrom(start: Start, history: readonly Turn[], model: ModelInfo | null): number {
	const run = history.at(-1)?.run;
	const asked = run?.asked;
	if (run === undefined || asked == null || run.model !== model?.id || run.adapter !== start.adapter)
		return 0;
	const bytes = 2 * run.tokens.promptLength * (start.metrics?.length ?? 0) * model.layers;
	if (bytes < WORTH_BYTES) return 0;
	const same =
		asked.messages.every((message, at) => isSame(message, start.messages[at])) &&
		isSame(asked.template, start.template);
	if (!same || asked.messages.length >= start.messages.length) return 0;
	const strip = new Strip(
		run,
		history.slice(0, -1).map((turn) => turn.run),
	).refresh();
	const { promptLength } = run.tokens;
	for (let position = 0; position < promptLength; position++) if (!strip.has(position)) return 0;
	return promptLength;
}

function isSame(one: unknown, other: unknown): boolean {
	return JSON.stringify(one) === JSON.stringify(other);
}
