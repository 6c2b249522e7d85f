// The bytes of a recording's file. Arrays come out byte for byte as Python writes them; the zip around them need not.
import type { Dtype, Npy, Numbers } from "./npy";
import { type Packed, pack } from "./npz";
import type { Recording, RunArrays } from "./recording";

export function writeRecording({ meta, runs }: Recording): Promise<Uint8Array<ArrayBuffer>> {
	const members: [string, Npy | string][] = [["meta.json", JSON.stringify(meta)]];
	runs.forEach((run, index) => {
		for (const [name, array] of arraysOf(run)) members.push([`runs/${index}/${name}.npy`, array]);
	});
	return pack(members as Packed);
}

function* arraysOf(run: RunArrays): Generator<[name: string, array: Npy]> {
	const { tokens, texts, logprobs, ranks, revisions, layers, rows, entropy, lens, alternatives, names } = run;
	yield ["tokens", list("<i4", tokens)];
	yield ["text", list("|u1", texts.bytes)];
	yield ["text_offsets", list("<i4", texts.offsets)];
	yield ["logprobs", list("<f4", logprobs)];
	yield ["ranks", list("<i4", ranks)];
	yield ["revisions", list("<i4", revisions)];
	if (entropy !== null) yield ["entropy", list("<f2", entropy)];
	for (const [metric, values] of rows) {
		yield [`rows/${metric}`, { dtype: "<f2", shape: [revisions.length, layers], values }];
	}
	if (lens !== null) {
		const { positions, layers: read, top, ids, probabilities } = lens;
		const shape = [positions.length, read.length, top];
		yield ["lens/positions", list("<i4", positions)];
		yield ["lens/layers", list("<i4", read)];
		yield ["lens/ids", { dtype: "<i4", shape, values: ids }];
		yield ["lens/probabilities", { dtype: "<f2", shape, values: probabilities }];
	}
	if (alternatives !== null) {
		const { positions, top, ids, logprobs: nats } = alternatives;
		const shape = [positions.length, top];
		yield ["alternatives/positions", list("<i4", positions)];
		yield ["alternatives/ids", { dtype: "<i4", shape, values: ids }];
		yield ["alternatives/logprobs", { dtype: "<f4", shape, values: nats }];
	}
	if (names !== null) {
		yield ["names/ids", list("<i4", names.ids)];
		yield ["names/text", list("|u1", names.texts.bytes)];
		yield ["names/text_offsets", list("<i4", names.texts.offsets)];
	}
}

function list<D extends Dtype>(dtype: D, values: Numbers<D>): Npy {
	return { dtype, shape: [values.length], values };
}
