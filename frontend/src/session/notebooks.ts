// Runs that a notebook has begun. The server tells everybody of them; a person opens one, and a page that shows nothing
// opens one by itself. An opened one stands on the page alone, as a text that goes on: no chat is written on by it, and
// the chat that stood there waits beside it.
import type { RunNotice } from "../protocol/types.gen";
import { Run, type Steered } from "../store/run";
import type { Turn } from "./conversation";
import { RUN_NAME } from "./kept";
import type { Parts } from "./parts";

export const WRITING_HERE =
	"A reply is being written here. Open the notebook's run in another tab, or when this reply has ended.";

/** The chat that stood on the page. */
interface Left {
	/** Of its last turn; null for none. */
	readonly key: string | null;
	readonly steered: Steered;
}

export class Notebooks {
	/** Those that the server keeps, the newest first. */
	runs: readonly RunNotice[] = [];
	/** Runs that were told of before: only a new one is opened without anybody's doing. */
	#known = new Set<string>();
	#left: Left | null = null;

	constructor(
		private readonly parts: Pick<
			Parts,
			"connection" | "server" | "turns" | "notes" | "steering" | "delivery" | "cursor" | "batch" | "changed"
		>,
		/** Whether nobody has said or shown anything on the page. */
		private readonly idle: () => boolean,
	) {}

	/** Whether what is on the page was asked by a notebook. */
	get shown(): boolean {
		return this.parts.turns.notebook;
	}

	/** Whether a chat waits beside what is shown. */
	get hasChat(): boolean {
		return this.shown && this.#left !== null && this.#left.key !== null;
	}

	/** Where the turns of that chat lead to, for a reload; null where there is none. */
	get chat(): string | null {
		return this.hasChat ? this.#left!.key : null;
	}

	/** A line is up, and the server has told of nothing yet. */
	none(): void {
		this.runs = [];
	}

	/** The server has told of these. */
	told(runs: readonly RunNotice[]): void {
		this.runs = runs;
		const live = runs.find(({ run, state }) => state !== "finished" && !this.#known.has(run));
		this.#known = new Set(runs.map(({ run }) => run));
		this.#forgetUnreachable();
		if (live !== undefined && this.idle()) this.open(live.run);
	}

	/** Put a run on the page, alone. */
	open(name: string): void {
		const { connection, server, turns, notes, steering, delivery, cursor, batch, changed } = this.parts;
		if (!RUN_NAME.test(name)) return;
		if (turns.live !== null && turns.live.origin !== "notebook") {
			notes.notify("page", WRITING_HERE);
			return;
		}
		this.#leaveChat();
		const known = delivery.find(name);
		const turn = turns.everything.find(({ run }) => run === known);
		const run = turn?.run ?? new Run(turns.newId(), { sentAt: null, phase: "away", batch });
		if (turn !== undefined) {
			turns.choose(turn.key);
		} else {
			run.name = name;
			run.origin = "notebook";
			run.delivery.epoch = server.epoch;
			turns.all = [{ key: run.id, user: "", run, before: [], watched: true }];
			turns.shown = run;
			delivery.follow(run);
		}
		steering.attach(run);
		if (connection.state.kind === "live") delivery.resume(run);
		cursor.set(null);
		changed.changed();
	}

	/** A run that was asked to be watched turns out to be a notebook's: it stands alone. */
	separate(turn: Turn): void {
		const { turns } = this.parts;
		if (turns.all.length === 1 || turns.last !== turn) return;
		const chat = turns.all.at(-2)!;
		this.#left ??= { key: chat.key, steered: { strengths: {}, settings: {} } };
		// Nothing stands behind the chat any more.
		turns.all = turns.all.slice(0, -1);
		turns.all = [turn];
	}

	/** Put the chat back that stood on the page, as it was, with its sliders. */
	back(): void {
		const { turns, steering, cursor, changed } = this.parts;
		if (!this.shown) return;
		const left = this.#left;
		this.#left = null;
		if (steering.run !== null) steering.detach(steering.run);
		if (left !== null) steering.place(left.steered);
		if (left === null || left.key === null) {
			turns.all = [];
			turns.shown = null;
		} else {
			turns.choose(left.key);
		}
		cursor.set(null);
		changed.changed();
	}

	/** A chat of its own begins, or everything was put away. */
	forgetChat(): void {
		this.#left = null;
	}

	#leaveChat(): void {
		const { turns, steering } = this.parts;
		if (this.shown) return;
		this.#left = { key: turns.last?.key ?? null, steered: steering.steered() };
	}

	/** What neither the server tells of nor the page shows cannot be opened any more. */
	#forgetUnreachable(): void {
		const { turns, delivery } = this.parts;
		for (const { key, run } of turns.everything) {
			if (run.origin !== "notebook" || turns.all.some((turn) => turn.key === key)) continue;
			if (run.name !== null && this.#known.has(run.name)) continue;
			turns.remove(key);
			delivery.forget(run);
		}
	}
}
