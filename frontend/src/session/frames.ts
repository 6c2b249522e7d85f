// Where each frame of the server goes. A token's way through the page reads in one direction:
//
//     transport (bytes) -> codec (frame) -> connection (welcome, ping) -> here -> Run.take -> its stores
//
// and from the stores, at most once per animation frame, to what is shown: text (chat/tokenText), map
// (heatmap/view), signs of steering (steering/Signs). Nothing on that way waits for React.
import type { EditInfo, Error as ServerError, ServerFrame, Welcome } from "../protocol/types.gen";
import { isRunFrame, type Run, type RunFrame } from "../store/run";
import type { Asking } from "./asking";
import { changedSentence, movedSentence } from "./away";
import type { Elsewhere } from "./elsewhere";
import type { Filling } from "./filling";
import type { Notebooks } from "./notebooks";
import type { Parts } from "./parts";

const STEERING_CODES = new Set(["unknown_vector", "steering_failed"]);

export class FrameRouter {
	constructor(
		private readonly parts: Pick<
			Parts,
			| "connection"
			| "server"
			| "turns"
			| "notes"
			| "offers"
			| "steering"
			| "edits"
			| "delivery"
			| "clock"
			| "changed"
		>,
		private readonly asking: Asking,
		private readonly elsewhere: Elsewhere,
		private readonly filling: Filling,
		private readonly notebooks: Notebooks,
	) {}

	onFrame(frame: ServerFrame): void {
		if (isRunFrame(frame)) {
			this.#onRunFrame(frame);
			return;
		}
		const { server, offers, notes, turns, changed } = this.parts;
		const { vectors, model, engine } = server;
		switch (frame.type) {
			case "welcome":
				this.#onWelcome(frame);
				break;
			case "engine":
				server.engineFrame(frame);
				offers.known(vectors);
				notes.moved = changedSentence(model, engine, server, turns.all.length > 0) ?? notes.moved;
				break;
			case "edits":
				this.#onEdits(frame.edits);
				break;
			case "notebook_runs":
				this.notebooks.told(frame.runs);
				break;
			case "error":
				this.#onError(frame);
				break;
		}
		changed.changed();
	}

	#onWelcome(frame: Welcome): void {
		const { server, offers, turns, notes, steering, delivery } = this.parts;
		const { name, epoch, vectors } = server;
		if (epoch !== null && epoch !== frame.epoch) {
			notes.moved = movedSentence(name, frame.name, turns.all.length > 0, turns.live !== null);
		}
		server.welcome(frame);
		steering.limits = frame.limits;
		offers.known(vectors);
		this.#onEdits(frame.edits ?? []);
		this.notebooks.none();
		delivery.back(frame.epoch);
		this.#knowEnds();
	}

	#onEdits(edits: readonly EditInfo[]): void {
		const gone = this.parts.edits.known(edits);
		if (gone.length === 0) return;
		const what = gone.length === 1 ? `The edit ${gone[0]} is` : `The edits ${gone.join(", ")} are`;
		this.parts.notes.notify("steering", `${what} no longer on this server: the next reply is without.`);
	}

	#onRunFrame(frame: RunFrame): void {
		if (this.filling.took(frame)) return;
		const { connection, server, turns, steering, delivery, clock, changed } = this.parts;
		// By the server's name first: a run that was asked for elsewhere may have any `id`.
		const starting = frame.type === "started" ? turns.starting(frame.id) : null;
		const run = delivery.find(frame.run) ?? starting;
		if (run === null) {
			// The chat it belonged to is gone; it need not be written to its end.
			if (frame.type === "started" && turns.wasPutAway(frame.id)) {
				connection.send({ type: "stop", run: frame.run });
			}
			return;
		}
		if (frame.type === "started" || frame.type === "resumed") {
			// The server's model may be another by now, and the one before unknown to this page.
			const model = server.modelNamed(frame.type === "started" ? frame.model : (run.model ?? ""));
			if (model !== null) run.know(model);
		}
		const before = { live: run.delivery.live, queued: run.delivery.queued, tokens: run.tokens.ids.length };
		run.take(frame, clock.now());
		// A run that the page can no longer show rightly need not be written to its end.
		if (before.live && !run.delivery.live && frame.type !== "finished") {
			connection.send({ type: "stop", run: frame.run });
			steering.ended(run);
			changed.changed();
		}
		if (run === starting) this.#admitted(run);
		delivery.took(run, frame);
		switch (frame.type) {
			case "started":
				this.elsewhere.fillIn(run);
				changed.changed();
				break;
			case "resumed":
				steering.resumed(run, frame.rev, frame);
				changed.changed();
				break;
			case "finished":
				steering.ended(run);
				this.asking.finished(run);
				changed.changed();
				break;
			case "applied":
				// Somebody else steers it: how, is said by an answer to `resume`.
				if (steering.applied(run, frame.rev)) delivery.resume(run);
				break;
			case "tokens":
				// The turn waits no longer.
				if (before.tokens === 0 && run.tokens.ids.length > 0) changed.changed();
				break;
			case "rows":
				// The first rows put revision 0 in force; later ones change nothing that a slider says.
				if (run.rows.changes.length === 1) steering.changed.changed();
				break;
			case "watched":
				// The run may have metrics of its own now, which can be picked.
				changed.changed();
				break;
			case "queued":
				if (run.delivery.queued !== before.queued) changed.changed();
				break;
		}
	}

	#admitted(run: Run): void {
		const { server, turns, steering, delivery } = this.parts;
		run.delivery.epoch = server.epoch;
		delivery.follow(run);
		turns.admitted();
		// Of runs that this one replaces nothing is shown any more.
		const wanted = new Set(turns.everything.map((turn) => turn.run));
		this.filling.keepOnly(wanted);
		delivery.keepOnly(new Set([...wanted, ...this.filling.runs]));
		steering.started(run);
	}

	#onError(frame: ServerError): void {
		const { turns, steering, delivery, notes } = this.parts;
		if (this.filling.refused(frame)) return;
		const { id, code, message } = frame;
		if (id !== null && turns.starting(id) !== null) {
			this.asking.takeBack(message);
			return;
		}
		// Of a start that was put away nobody need hear.
		if (id !== null && turns.wasPutAway(id)) return;
		const run = frame.run === null ? undefined : delivery.find(frame.run);
		switch (code) {
			case "unknown_run":
			case "other_epoch":
				// Of a run that was put away nobody need hear.
				if (run === undefined) return;
				delivery.unavailable(run, code);
				this.#knowEnds();
				return;
			case "rate_limited":
				if (run === undefined) break;
				delivery.later(run);
				steering.refused(run);
				return;
			case "stale_revision":
				if (run === undefined) break;
				steering.stale(run);
				delivery.resume(run);
				return;
		}
		if (STEERING_CODES.has(code) || /^(strengths|settings)/.test(frame.field ?? "")) {
			notes.notify("steering", message);
		} else if (run === undefined) {
			notes.notify("page", message);
		} else if (run.delivery.complete) {
			// Only rows are still asked of it, and the map shows which are missing.
			delivery.unavailable(run, code);
		} else {
			run.fail(code, message);
			steering.ended(run);
		}
	}

	/** Runs may have ended without their last frame: none of them is steered or written on. */
	#knowEnds(): void {
		for (const { run } of this.parts.turns.everything) if (!run.delivery.live) this.parts.steering.ended(run);
		this.asking.forgetEnded();
	}
}
