// A recording from the bytes of a file. The file may be damaged or made to do harm: whatever it is, `readRecording`
// gives a recording whose parts fit each other, or throws a `RecordingError` with a sentence for the person who opened
// it.
import { RecordingError } from "./error";
import { type Meta, type RunMeta, readMeta } from "./meta";
import type { Dtype } from "./npy";
import { Npz } from "./npz";
import type { AlternativeArrays, LensArrays, Recording, RunArrays, Texts } from "./recording";

/** Of one run. A page makes an element for each token of a reply. */
const MOST_TOKENS = 2 ** 20;
const MOST_REPLY = 2 ** 18;
const MOST_TEXT_BYTES = 64 * 2 ** 20;
/** Numbers of the logit lens, with the positions between that it did not read. */
const MOST_GUESSES = 2 ** 26;

export async function readRecording(bytes: Uint8Array, mostBytes?: number): Promise<Recording> {
	const npz = new Npz(bytes, mostBytes);
	const meta: Meta = readMeta(await npz.json("meta.json"));
	const runs: RunArrays[] = [];
	for (const [index, run] of meta.runs.entries()) {
		const arrays = await new RunReader(npz, index).read(run);
		checkMeta(run, index, arrays);
		runs.push(arrays);
	}
	return { meta, runs };
}

/** Reads the arrays of one run, and holds them against each other. */
class RunReader {
	readonly #folder: string;

	constructor(
		private readonly npz: Npz,
		index: number,
	) {
		this.#folder = `runs/${index}`;
	}

	async read(meta: RunMeta): Promise<RunArrays> {
		const tokens = await this.#list("tokens", "<i4");
		const texts = await this.#texts("", tokens.length);
		const reply = tokens.length - meta.prompt.tokens;
		if (tokens.length > MOST_TOKENS || reply > MOST_REPLY) {
			this.#refuse("tokens", `holds ${tokens.length} tokens, more than a page shows`);
		}
		if (reply < 0) {
			this.#refuse("tokens", `holds ${tokens.length} tokens, and the prompt alone has ${meta.prompt.tokens}`);
		}
		const logprobs = await this.#list("logprobs", "<f4", reply);
		const ranks = await this.#list("ranks", "<i4", reply);
		const revisions = await this.#list("revisions", "<i4");
		if (revisions.length > tokens.length) this.#refuse("revisions", "goes further than the tokens");
		if (revisions.some((rev) => rev < -1)) this.#refuse("revisions", "has a revision before 0");
		const { rows, layers } = await this.#rows(meta, revisions.length);
		const entropy = this.#has("entropy") ? await this.#list("entropy", "<f2", revisions.length) : null;
		const lens = this.#has("lens/positions") ? await this.#lens(tokens.length, layers) : null;
		const alternatives = this.#has("alternatives/positions") ? await this.#alternatives(tokens.length) : null;
		const names = this.#has("names/ids") ? await this.#names() : null;
		return { tokens, texts, logprobs, ranks, revisions, layers, rows, entropy, lens, alternatives, names };
	}

	async #rows(
		{ metrics, model }: RunMeta,
		columns: number,
	): Promise<{ rows: Map<string, Uint16Array<ArrayBuffer>>; layers: number }> {
		const rows = new Map<string, Uint16Array<ArrayBuffer>>();
		let layers = model?.layers ?? null;
		for (const { id } of metrics) {
			const { shape, values } = await this.npz.array(this.#name(`rows/${id}`), "<f2", 2);
			const [found, deep] = shape as [number, number];
			if (found !== columns) this.#refuse(`rows/${id}`, `has ${found} columns, and the run has ${columns}`);
			layers ??= deep;
			if (deep !== layers) this.#refuse(`rows/${id}`, `has ${deep} layers, and the run has ${layers}`);
			rows.set(id, values);
		}
		return { rows, layers: layers ?? 0 };
	}

	async #lens(length: number, layersOfRun: number): Promise<LensArrays> {
		const positions = await this.#ascending("lens/positions", length);
		const layers = await this.#ascending("lens/layers", layersOfRun || Number.MAX_SAFE_INTEGER);
		const ids = await this.npz.array(this.#name("lens/ids"), "<i4", 3);
		const probabilities = await this.npz.array(this.#name("lens/probabilities"), "<f2", 3);
		const top = ids.shape[2]!;
		const reach = positions.length === 0 ? 0 : positions.at(-1)! - positions[0]! + 1;
		if (reach * layers.length * top > MOST_GUESSES) {
			this.#refuse("lens/positions", "reaches further than a page can hold");
		}
		for (const [name, { shape }] of [
			["lens/ids", ids],
			["lens/probabilities", probabilities],
		] as const) {
			if (shape.join() !== [positions.length, layers.length, top].join()) {
				this.#refuse(name, "has another shape than the logit lens's positions and layers ask for");
			}
		}
		return { positions, layers, top, ids: ids.values, probabilities: probabilities.values };
	}

	async #alternatives(length: number): Promise<AlternativeArrays> {
		const positions = await this.#ascending("alternatives/positions", length);
		const ids = await this.npz.array(this.#name("alternatives/ids"), "<i4", 2);
		const logprobs = await this.npz.array(this.#name("alternatives/logprobs"), "<f4", 2);
		const top = ids.shape[1]!;
		if (ids.shape[0] !== positions.length || logprobs.shape.join() !== ids.shape.join()) {
			this.#refuse("alternatives/ids", "has another shape than the alternatives' positions ask for");
		}
		return { positions, top, ids: ids.values, logprobs: logprobs.values };
	}

	async #names(): Promise<NonNullable<RunArrays["names"]>> {
		const ids = await this.#list("names/ids", "<i4");
		return { ids, texts: await this.#texts("names/", ids.length) };
	}

	async #texts(folder: string, count: number): Promise<Texts> {
		const bytes = await this.#list(`${folder}text`, "|u1");
		if (bytes.length > MOST_TEXT_BYTES) {
			this.#refuse(`${folder}text`, `is ${bytes.length} bytes long, more than a page shows`);
		}
		const offsets = await this.#list(`${folder}text_offsets`, "<i4", count + 1);
		const rising = offsets.every((offset, index) => index === 0 || offset >= offsets[index - 1]!);
		if (!rising || offsets[0] !== 0 || offsets[count] !== bytes.length) {
			this.#refuse(`${folder}text_offsets`, "does not divide the text from its beginning to its end");
		}
		return { bytes, offsets };
	}

	/** Numbers that rise, from 0 on and below `end`. */
	async #ascending(name: string, end: number): Promise<Int32Array<ArrayBuffer>> {
		const found = await this.#list(name, "<i4");
		const good = found.every((one, index) => one < end && one > (index === 0 ? -1 : found[index - 1]!));
		if (!good) this.#refuse(name, "does not rise, or goes beyond the run");
		return found;
	}

	/** An array of one axis; of this length, where one is asked for. */
	async #list<D extends Dtype>(name: string, dtype: D, length?: number) {
		const { values } = await this.npz.array(this.#name(name), dtype, 1);
		if (length !== undefined && values.length !== length) {
			this.#refuse(name, `has ${values.length} numbers, and must have ${length}`);
		}
		return values;
	}

	#has(name: string): boolean {
		return this.npz.has(this.#name(name));
	}

	#name(name: string): string {
		return `${this.#folder}/${name}.npy`;
	}

	#refuse(name: string, why: string): never {
		throw new RecordingError(`${this.#name(name)} ${why}.`);
	}
}

/** Whether every position that `meta.json` speaks of is one of the run. */
function checkMeta(run: RunMeta, index: number, { tokens }: RunArrays): void {
	const length = tokens.length;
	const { prompt, revisions, watched, parts, cached } = run;
	const beyond = (what: string): never => {
		throw new RecordingError(
			`meta.json: runs[${index}].${what} goes beyond the ${length} tokens of the run, or is no stretch of them.`,
		);
	};
	// The last token has no row yet, but a revision may be in force from the pass that reads it.
	if (revisions.some(({ position }) => position > length)) beyond("revisions");
	if (watched.some(({ from }) => from > length)) beyond("watched");
	if ([parts.thought, parts.answer].some((position) => position !== null && position > length))
		beyond("parts");
	if (cached.some(([start, count]) => count < 1 || start + count > length)) beyond("cached");
	if (cached.reduce((sum, [, count]) => sum + count, 0) > length) beyond("cached");
	if (prompt.spans.some(({ start, end }) => start > end || end > prompt.tokens)) beyond("prompt.spans");
}
