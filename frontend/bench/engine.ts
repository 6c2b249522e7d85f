// An engine that only pretends, at the other end of a transport: it admits any start and says rows and tokens when the
// benchmark wants them. What it says is packed beforehand and unpacked on its way into the page, as bytes of a socket
// are, so that a measurement has the page's work in it and not the making of the numbers.
import { encode } from "@msgpack/msgpack";
import type { OpenTransport, TransportHandlers } from "../src/connection/transport";
import { decodeFrame } from "../src/protocol/codec";
import type { ClientFrame, MetricInfo, Rows, ServerFrame, Start, Tokens } from "../src/protocol/types.gen";
import { chance, metricInfo, modelInfo, vectorInfo, welcomeFrame } from "../src/testing";

export interface Size {
	layers: number;
	metrics: number;
	/** Positions of prompt and reply together. */
	positions: number;
	prompt: number;
	sliders: number;
}

const ROWS_PER_FRAME = 256;
const WORDS = (
	"the harbour wakes before town does and by four first boats are back their crews stand in light of hall " +
	"where nobody speaks much while buyers walk along crates lift one here write numbers into small books"
).split(" ");
/** Words in a line of the reply: prose as chat models write it. */
const LINE = 60;

export class PretendedEngine {
	readonly metrics: MetricInfo[];
	readonly open: OpenTransport;
	#line: TransportHandlers | null = null;
	#start: Start | null = null;
	#run = 0;
	/** Tokens of the newest run's prompt. */
	#prompt = 0;
	/** Half floats that rows are cut from. */
	readonly #noise: Uint16Array;

	constructor(private readonly size: Size) {
		this.metrics = Array.from({ length: size.metrics }, (_, index) =>
			metricInfo({ id: `metric_${index}`, label: `Metric ${index}`, family: "own" }),
		);
		this.#noise = noise(size);
		this.open = (handlers) => {
			this.#line = handlers;
			setTimeout(() => {
				handlers.onOpen();
				this.say(this.#welcome());
			});
			return { send: (frame) => this.#take(frame), close: () => {} };
		};
	}

	get run(): string {
		return `r${this.#run}`;
	}

	/** Admit the newest start: a prompt of so many tokens is there, and no row. */
	admit(prompt = this.size.prompt): void {
		this.#run += 1;
		this.#prompt = prompt;
		const texts = Array.from({ length: prompt }, (_, index) => word(index));
		this.say({
			type: "started",
			run: this.run,
			seq: 1,
			id: this.#start!.id,
			prompt: {
				ids: texts.map((_, index) => index),
				texts,
				spans: [{ role: "user", start: 0, end: prompt }],
			},
			metrics: this.metrics.map(({ id }) => id),
			model: "",
			adapter: null,
			sampling: this.#start!.sampling,
			strengths: {},
			settings: {},
		} as ServerFrame);
	}

	finish(): void {
		this.say({
			type: "finished",
			run: this.run,
			seq: 1e9,
			reason: "length",
			stop: null,
			error: null,
			usage: { prompt_tokens: this.#prompt, reply_tokens: 0, cached_tokens: 0 },
			timing: { first_token_ms: 1, total_ms: 2, tokens_per_s: 100 },
		});
	}

	/** The bytes that say positions [from, to), in messages of at most `most` rows each. */
	pack(from: number, to: number, most = ROWS_PER_FRAME): Uint8Array[] {
		const packed: Uint8Array[] = [];
		for (let start = from; start < to; start += most) {
			const count = Math.min(most, to - start);
			const tokens = this.#tokens(start, count);
			if (tokens.ids.length > 0) packed.push(encode(tokens));
			packed.push(encode(this.#rows(start, count)));
		}
		return packed;
	}

	hear(bytes: Uint8Array): void {
		this.#line!.onFrame(decodeFrame(bytes)!);
	}

	say(frame: ServerFrame): void {
		this.#line!.onFrame(frame);
	}

	#take(frame: ClientFrame): boolean {
		if (frame.type === "start") this.#start = frame;
		else if (frame.type === "steer") {
			this.say({ type: "applied", run: this.run, seq: 1, rev: frame.rev, position: 0 } as ServerFrame);
		}
		return true;
	}

	#welcome(): ServerFrame {
		const { layers, positions, sliders } = this.size;
		const vectors = Array.from({ length: sliders }, (_, index) =>
			vectorInfo({
				id: `vector_${index}`,
				label: `Vector ${index}`,
				description: "What this vector does when its slider is moved to the right.",
				layers: [index % layers],
			}),
		);
		const limits = { ...welcomeFrame().limits, max_vectors: sliders, max_frame_bytes: 1 << 26 };
		return welcomeFrame({
			model: modelInfo({ layers, max_model_len: positions }),
			metrics: this.metrics,
			vectors,
			limits,
		});
	}

	/** The tokens of the reply at [start, start + count). */
	#tokens(start: number, count: number): Tokens {
		const from = Math.max(start, this.#prompt);
		const positions = Array.from({ length: Math.max(0, start + count - from) }, (_, index) => from + index);
		return {
			type: "tokens",
			run: this.run,
			seq: 1,
			start: from,
			ids: positions.map((position) => position % 997),
			texts: positions.map(word),
			logprobs: positions.map(() => -0.5),
			ranks: positions.map(() => 1),
		};
	}

	#rows(start: number, count: number): Rows {
		const { layers, metrics } = this.size;
		const width = layers * metrics;
		const values = new Uint16Array(count * width);
		for (let row = 0; row < count; row++) {
			const at = ((start + row) * 7919 + this.#run) % (this.#noise.length - width);
			values.set(this.#noise.subarray(at, at + width), row * width);
		}
		return {
			type: "rows",
			run: this.run,
			seq: 1,
			start,
			count,
			revs: Array.from({ length: count }, () => 0),
			metrics: this.metrics.map(({ id }) => id),
			layers,
			dtype: "f2",
			data: new Uint8Array(values.buffer),
			entropy: new Uint8Array(2 * count),
		};
	}
}

function word(position: number): string {
	const next = WORDS[(position * 7) % WORDS.length]!;
	return position % LINE === LINE - 1 ? `${next}.\n` : `${next} `;
}

/** Numbers of an ordinary reply as half floats: 4 to 8, and one in a hundred up to 32. */
function noise({ layers, metrics }: Size): Uint16Array {
	const random = chance(7);
	return Uint16Array.from({ length: 64 * layers * metrics + 1 }, () =>
		random() < 0.01 ? 0x4800 + 0x800 * random() : 0x4400 + 0x400 * random(),
	);
}
