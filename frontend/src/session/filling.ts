// Rows of tokens that the engine did not compute for a reply, because it had them in its cache. They are computed
// for the asking: the same start once more, which reads no cache and writes one token, and is no part of the
// conversation. Its rows go into the map of the reply.
import type { Rows, Error as ServerError, Start } from "../protocol/types.gen";
import { Run, type RunFrame } from "../store/run";
import type { Parts } from "./parts";

export const LINE_LOST = "The connection was lost meanwhile.";
export const OTHER_TEXT = "The server reads this question as other tokens now.";
export const NOT_SENT = "The server did not send them all.";

/** "possible": when a person wants them; "never": it is not known here what to compute. */
export type Filled = { kind: "possible"; problem: string | null } | { kind: "under-way" } | { kind: "never" };

export class Filling {
	/** The reply whose map each run fills. */
	#under = new Map<Run, Run>();
	/** Why the last try for a reply did not bring them, as a sentence. */
	#problems = new WeakMap<Run, string>();

	constructor(
		private readonly parts: Pick<
			Parts,
			"connection" | "server" | "turns" | "delivery" | "clock" | "batch" | "changed"
		>,
	) {}

	/** The runs that compute rows now. */
	get runs(): readonly Run[] {
		return [...this.#under.keys()];
	}

	/** Whether rows of a reply are being computed. */
	fills(reply: Run): boolean {
		return [...this.#under.values()].includes(reply);
	}

	of(reply: Run): Filled {
		if (this.fills(reply)) return { kind: "under-way" };
		if (startFor(reply) === null || reply.delivery.epoch !== this.parts.server.epoch)
			return { kind: "never" };
		// Another model's numbers are other numbers.
		if (reply.model !== null && reply.model !== this.parts.server.model?.id) return { kind: "never" };
		return { kind: "possible", problem: this.#problems.get(reply) ?? null };
	}

	begin(reply: Run): void {
		const { connection, server, turns, clock, batch, changed } = this.parts;
		const start = startFor(reply);
		if (start === null || this.of(reply).kind !== "possible") return;
		const run = new Run(turns.newId(), { sentAt: clock.now(), steered: reply.steered, batch });
		const away = server.away(connection.state);
		if (away !== null || !connection.send({ ...start, id: run.id })) {
			this.#problems.set(reply, away ?? "There is no connection to the server now.");
		} else {
			this.#problems.delete(reply);
			this.#under.set(run, reply);
		}
		changed.changed();
	}

	/** Whether a frame was of a run that computes rows. */
	took(frame: RunFrame): boolean {
		const run = this.runs.find((one) =>
			frame.type === "started" ? one.id === frame.id : one.name === frame.run,
		);
		if (run === undefined) return false;
		const { server, delivery, clock } = this.parts;
		const reply = this.#under.get(run)!;
		if (frame.type === "started") run.know(server.modelNamed(frame.model));
		run.take(frame, clock.now());
		if (frame.type === "started") {
			run.delivery.epoch = server.epoch;
			delivery.follow(run);
			if (!sameTokens(frame.prompt.ids, reply.tokens.prompt.ids)) this.#end(run, OTHER_TEXT);
		}
		if (frame.type === "rows") this.#fill(reply, frame);
		delivery.took(run, frame);
		if (run.problem !== null) this.#end(run, run.problem.message);
		else if (run.delivery.complete && run.delivery.missing.none)
			this.#end(run, reply.cached.none ? null : NOT_SENT);
		return true;
	}

	/** Whether an error was about a run that computes rows. */
	refused({ id, run: name, code, message }: ServerError): boolean {
		const run = this.runs.find((one) => one.id === id || (name !== null && one.name === name));
		if (run === undefined) return false;
		if (code === "rate_limited" && run.name !== null) this.parts.delivery.later(run);
		else this.#end(run, message);
		return true;
	}

	/** Only the maps of these replies are still shown. */
	keepOnly(replies: ReadonlySet<Run>): void {
		for (const [run, reply] of [...this.#under]) if (!replies.has(reply)) this.#end(run, null);
	}

	/** The line is down. */
	lost(): void {
		for (const run of this.runs) this.#end(run, LINE_LOST);
	}

	#fill(reply: Run, frame: Rows): void {
		try {
			reply.fill(frame);
		} catch (error) {
			reply.fail("internal", (error as Error).message);
		}
	}

	#end(run: Run, problem: string | null): void {
		const reply = this.#under.get(run);
		if (reply === undefined) return;
		const { connection, delivery, changed } = this.parts;
		if (run.delivery.live && run.name !== null) connection.send({ type: "stop", run: run.name });
		this.#under.delete(run);
		delivery.forget(run);
		if (problem !== null) this.#problems.set(reply, problem);
		changed.changed();
	}
}

/** The start that computes the rows that a reply lacks, but for its id; null where that is not known. */
function startFor(reply: Run): Start | null {
	const { asked, cached } = reply;
	if (asked === null || cached.none || reply.name === null) return null;
	// They are steered as the reply's first revision says, unless another came before the engine began.
	const from = cached.first(1)!.start;
	if (reply.applied.some(({ rev, position }) => rev > 0 && position <= from + cached.count)) return null;
	return {
		...asked,
		sampling: { ...asked.sampling, max_tokens: 1 },
		lens: null,
		entropy: false,
		read_cache: false,
		rows_from: 0,
	};
}

function sameTokens(one: readonly number[], other: readonly number[]): boolean {
	return one.length === other.length && one.every((id, at) => id === other[at]);
}
