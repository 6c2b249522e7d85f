// Replies that this page did not ask for itself: those that a reload left, and those of another tab. Their runs have
// names and no tokens yet, so `Delivery` fetches what the server still has of them.
import { Run } from "../store/run";
import { readPrompt, type Turn } from "./conversation";
import { type Kept, RUN_NAME, revive, reviveText } from "./kept";
import type { Notebooks } from "./notebooks";
import type { Parts } from "./parts";

/** A reply that a recording brings: by the name under which its source has the run, or as its text alone. */
export type Recorded = { readonly name: string } | { readonly text: string };

export interface RecordedTurn {
	/** Of its own, and of the turn in front; null for a first one. */
	readonly key: string;
	readonly parent: string | null;
	readonly user: string;
	readonly run: Recorded;
	readonly before: readonly Recorded[];
}

export const TEXT_ALONE =
	"The recording has the text of this reply and no numbers, so there is no map of it.";

export class Elsewhere {
	constructor(
		private readonly parts: Pick<
			Parts,
			"connection" | "server" | "turns" | "notes" | "steering" | "delivery" | "cursor" | "batch" | "changed"
		>,
		private readonly notebooks: Notebooks,
	) {}

	/** Take up a conversation that a reload left: its texts now, the rest when the server answers. */
	restore({ turns: kept, asked, cut }: Kept): void {
		const { turns, delivery, steering, notes, batch, changed } = this.parts;
		turns.all = kept.map(({ user, before, beforeMarks, watched, run: was }, index) => {
			const key = turns.newId();
			const run = revive(was, key, index === kept.length - 1, batch);
			if (run.name !== null && (run.delivery.live || run.finished !== null)) delivery.follow(run);
			const beginning = before === "" ? [] : [reviveText(before, `${key}.0`, batch, beforeMarks)];
			return { key, user, run, before: beginning, watched };
		});
		turns.shown = turns.last?.run ?? null;
		if (turns.live !== null) steering.attach(turns.live);
		turns.returned = asked;
		if (asked !== null) {
			notes.notify("composer", "The page was reloaded before the server took this.");
		} else if (cut) {
			notes.notify(
				"page",
				"The conversation is too long to be kept whole over a reload. Its beginning is gone.",
			);
		}
		changed.changed();
	}

	/**
	 * Show a conversation that a recording brings. What its runs are is told when the source answers, and a question that
	 * the recording does not have is read from the prompt.
	 */
	play(recorded: readonly RecordedTurn[]): void {
		const { turns, delivery, steering, batch, changed } = this.parts;
		const made = new Map<string, Run>();
		const runOf = (one: Recorded): Run => {
			if ("text" in one) {
				const run = reviveText(one.text, turns.newId(), batch);
				run.delivery.gone = TEXT_ALONE;
				return run;
			}
			const known = made.get(one.name);
			if (known !== undefined) return known;
			const run = new Run(turns.newId(), { sentAt: null, batch });
			run.name = one.name;
			made.set(one.name, run);
			delivery.follow(run);
			return run;
		};
		turns.plant(
			recorded.map(({ key, parent, user, run, before }) => ({
				turn: { key, user, before: before.map(runOf), run: runOf(run), watched: user === "" },
				parent,
			})),
		);
		if (turns.shown !== null) steering.attach(turns.shown);
		changed.changed();
	}

	/** Watch a reply that was asked for elsewhere, by its run's name. */
	watch(name: string): void {
		const { connection, server, turns, notes, steering, delivery, cursor, batch, changed } = this.parts;
		if (!RUN_NAME.test(name)) {
			notes.notify("page", "The address names no reply that could be watched.");
			return;
		}
		const known = delivery.find(name);
		if (known !== undefined) {
			turns.shown = known;
			cursor.set(null);
			changed.changed();
			return;
		}
		if (turns.live !== null) {
			notes.notify("page", "A reply is being written here. Open the link in a tab of its own.");
			return;
		}
		const key = turns.newId();
		const run = new Run(key, { sentAt: null, phase: "away", batch });
		run.name = name;
		run.delivery.epoch = server.epoch;
		turns.all = [...turns.all, { key, user: "", run, before: [], watched: true }];
		turns.shown = run;
		delivery.follow(run);
		steering.attach(run);
		if (connection.state.kind === "live") delivery.resume(run);
		changed.changed();
	}

	/** Address under which another tab watches a reply, while the server has it; null where it has not. */
	watchLink(run: Run): string | null {
		const { server, connection } = this.parts;
		const there =
			server.readOnly === null &&
			run.name !== null &&
			run.delivery.epoch === server.epoch &&
			run.delivery.gone === null &&
			run.delivery.phase !== "lost";
		return there && connection.state.kind === "live" ? `#watch=${run.name}` : null;
	}

	/** The prompt of a run has come: it tells what was asked elsewhere. */
	fillIn(run: Run): void {
		const { turns, batch } = this.parts;
		const turn = turns.all.find((one) => one.run === run);
		if (turn !== undefined && run.origin === "notebook") this.notebooks.separate(turn);
		if (turn === undefined || !turn.watched || turn.user !== "") return;
		const { prompt, specialIds, continues } = run.tokens;
		const read = readPrompt(prompt, specialIds, continues);
		const text = (reply: string) => reviveText(reply, turns.newId(), batch);
		const first = turns.all[0] === turn;
		const earlier = (first ? read.history : []).map(({ user, reply }): Turn => {
			const said = text(reply);
			return { key: said.id, user, run: said, before: [], watched: true };
		});
		const before = read.beginning === "" ? [] : [text(read.beginning)];
		turns.all = [
			...earlier,
			...turns.all.map((one) => (one === turn ? { ...turn, user: read.user, before } : one)),
		];
	}
}
