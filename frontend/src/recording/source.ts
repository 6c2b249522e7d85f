// A recording as a source of frames, like the socket: a session over it shows the conversation with its maps and
// texts, and knows no difference. It says `welcome`, answers `resume` and `rows` of its runs, and refuses all else
// with a sentence. Frames come in batches with time for the page between them.
import type { OpenTransport, TransportHandlers } from "../connection/transport";
import {
	type AskRows,
	type ClientFrame,
	PROTOCOL_VERSION,
	type ServerFrame,
	type Welcome,
} from "../protocol/types.gen";
import { Breath, nextTask } from "./breath";
import { framesOf, LAST, resumedOf, rowsOf } from "./frames";
import type { Meta, RunMeta } from "./meta";
import type { Recording, RunArrays } from "./recording";

/** Why nothing can be asked, steered or watched. */
export const READ_ONLY = "This is a recording: nothing can be asked, steered or watched in it.";
const EPOCH = "recording";
const NAME = /^recorded\.(\d{1,6})$/;

/** The name under which a source has a run: the server's own may be missing, or stand twice. */
export function nameOf(run: number): string {
	return `recorded.${run}`;
}

export function recordingTransport({ meta, runs }: Recording): OpenTransport {
	// The first line sends all there is, and lets go of it: the session has it then, and it need not be in memory twice.
	let left: readonly (RunArrays | null)[] = runs;
	return (handlers) => {
		const source = new Source(meta, left, handlers);
		left = meta.runs.map(() => null);
		return {
			send: (frame) => source.take(frame),
			close: () => source.close(),
		};
	};
}

class Source {
	#open = true;
	#welcomed = false;
	/** What was asked for and has not been answered, one at a time. */
	#asked: (() => AsyncGenerator<ServerFrame> | Generator<ServerFrame>)[] = [];
	#answering = false;
	/** Null where all of a run has been sent. */
	#arrays: (RunArrays | null)[];

	constructor(
		private readonly meta: Meta,
		runs: readonly (RunArrays | null)[],
		private readonly handlers: TransportHandlers,
	) {
		this.#arrays = [...runs];
		void nextTask().then(() => {
			if (this.#open) handlers.onOpen();
		});
	}

	close(): void {
		this.#open = false;
		this.#asked = [];
	}

	take(frame: ClientFrame): boolean {
		if (!this.#open) return false;
		switch (frame.type) {
			case "hello":
				this.#welcome();
				break;
			case "ping":
				this.handlers.onFrame({ type: "pong", t: frame.t });
				break;
			case "resume":
			case "rows": {
				// A welcome of another model than the last: everything will be asked for again.
				if (!this.#welcomed) break;
				const index = this.#find(frame.run);
				if (index === null) this.#refuse("unknown_run", "The recording has no such reply.", frame.run);
				else if (frame.type === "resume") this.#answer(() => this.#resumed(index, frame.after ?? 0));
				else this.#answer(() => this.#rows(index, frame));
				break;
			}
			case "start":
			case "start_together":
				this.#refuse("unexpected", READ_ONLY, null, frame.id);
				break;
			default:
				this.#refuse("unexpected", READ_ONLY, frame.run);
		}
		return true;
	}

	/** A session learns the models of a conversation from what its server says that it serves: the last one's stays. */
	#welcome(): void {
		const { runs } = this.meta;
		const last = runs.map(({ model }) => model).reduce((newest, model) => model ?? newest, null);
		const others = new Map(runs.map(({ model }) => [model?.id, model]));
		others.delete(last?.id);
		for (const model of others.values()) {
			if (model !== null && this.#open) this.handlers.onFrame(welcomeOf(runs, model));
		}
		this.#welcomed = true;
		if (this.#open) this.handlers.onFrame(welcomeOf(runs, last));
	}

	async *#resumed(index: number, after: number): AsyncGenerator<ServerFrame> {
		const breath = new Breath();
		const { name, meta, arrays } = this.#run(index);
		yield resumedOf({ name, meta }, after);
		if (after >= LAST || arrays === null) return;
		for (const frame of framesOf({ name, meta, arrays })) {
			yield frame;
			await breath.take();
		}
		this.#arrays[index] = null;
	}

	*#rows(index: number, asked: AskRows): Generator<ServerFrame> {
		const { name, meta, arrays } = this.#run(index);
		if (arrays !== null) yield* rowsOf({ name, meta, arrays }, asked);
	}

	#run(index: number) {
		return { name: nameOf(index), meta: this.meta.runs[index]!, arrays: this.#arrays[index] ?? null };
	}

	#find(name: string): number | null {
		const index = Number(NAME.exec(name)?.[1] ?? Number.NaN);
		return index < this.#arrays.length ? index : null;
	}

	#answer(frames: () => AsyncGenerator<ServerFrame> | Generator<ServerFrame>): void {
		this.#asked.push(frames);
		if (!this.#answering) void this.#answerAll();
	}

	async #answerAll(): Promise<void> {
		this.#answering = true;
		for (let next = this.#asked.shift(); next !== undefined; next = this.#asked.shift()) {
			await nextTask();
			for await (const frame of next()) {
				if (!this.#open) return;
				this.handlers.onFrame(frame);
			}
		}
		this.#answering = false;
	}

	#refuse(code: "unexpected" | "unknown_run", message: string, run: string | null, id: string | null = null) {
		this.handlers.onFrame({ type: "error", code, message, run, id, rev: null, field: null });
	}
}

function welcomeOf(runs: readonly RunMeta[], model: Welcome["model"]): Welcome {
	// Of metrics and vectors that several runs have, the last run says what they are.
	const merged = <T extends { id: string }>(lists: readonly (readonly T[])[]) => [
		...new Map(lists.flat().map((one) => [one.id, one])).values(),
	];
	return {
		type: "welcome",
		protocol: PROTOCOL_VERSION,
		server: "",
		name: runs.at(-1)?.server ?? "",
		epoch: EPOCH,
		engine: { state: "ready", stage: "", progress: 1 },
		model,
		// What a run computed by its own code is said with the run.
		metrics: merged(runs.map(({ metrics }) => metrics.filter(({ family }) => family !== "live"))),
		vectors: merged(runs.map(({ vectors }) => vectors)),
		limits: {
			max_frame_bytes: 2 ** 18,
			max_messages: 256,
			max_vectors: 2 ** 16,
			max_strength: Number.MAX_VALUE,
			max_runs_per_connection: 1,
			max_reply_tokens: 2 ** 17,
			grace_seconds: 0,
		},
		change_model: false,
		edits: [],
	};
}
