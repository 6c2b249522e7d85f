// What leaves the page's memory and comes back, with a shelf in memory.
import { beforeEach, describe, expect, test } from "vitest";
import { gapFrame, manualBatch, rowsFrame, startedFrame, testRun } from "../testing";
import { MemoryDisk } from "../testing/disk";
import { CHUNK } from "./rows";
import type { Run } from "./run";
import { LOST, Shelving } from "./shelving";

const METRICS = ["a", "b"];
/** Numbers that differ between runs, metrics and positions. */
const numbers = (start: number, count: number, of: number) =>
	rowsFrame(start, count, { metrics: METRICS, value: (p, m, l) => of * 100 + (p % 90) + m / 2 + l / 4 });
/** Bytes of two chunks of each metric, and of what is one number per position. */
const BYTES = 2 * 2 * 2 * 2 * CHUNK + 4 * 600;

let disk: MemoryDisk;
let runs: Run[];
let wanted: Set<Run>;
let budget: number;
let shelf: Shelving;

function make(of: number): Run {
	const run = testRun({ id: `c${of}` });
	run.take(startedFrame(["a"]), 0);
	run.take(numbers(0, 600, of), 0);
	return run;
}

beforeEach(() => {
	disk = new MemoryDisk();
	budget = 2.5 * BYTES;
	runs = [1, 2, 3].map(make);
	wanted = new Set([runs[2]!]);
	shelf = new Shelving({
		disk,
		runs: () => runs,
		wanted: () => all(wanted),
		get budget() {
			return budget;
		},
	});
});

const all = (of: Iterable<Run>) => new Map([...of].map((run) => [run, "all"] as const));

/** All promises of the shelf have been kept. */
const settled = () => new Promise((done) => setTimeout(done));
async function look(): Promise<void> {
	shelf.look();
	await settled();
}
const states = () => runs.map(({ rows }) => rows.state).join();
const sample = (run: Run) =>
	METRICS.map((metric) => [0, 1, 511, 512, 599].map((position) => run.rows.value(metric, position, 1)));

test("the longest unused leave until the rest fits, part by part", async () => {
	const before = sample(runs[0]!);
	await look();
	expect([states(), disk.asked]).toEqual(["shelved,here,here", ["write 1/0", "write 1/1"]]);
	expect(runs[0]!.rows.size).toBeLessThan(4000);
	expect(sample(runs[0]!).flat()).toEqual(Array.from({ length: 10 }, () => null));
	wanted = new Set([runs[0]!]);
	await look();
	expect([states(), sample(runs[0]!)]).toEqual(["here,shelved,here", before]);
});

test("what is shown moves to the end of the line", async () => {
	budget = 9 * BYTES;
	wanted = new Set();
	await look();
	wanted = new Set([runs[0]!]);
	await look();
	wanted = new Set([runs[2]!]);
	budget = 2.5 * BYTES;
	await look();
	expect(states()).toBe("here,shelved,here");
});

test("a run that nothing was added to leaves again without being written", async () => {
	await look();
	for (const shown of [runs[0]!, runs[1]!, runs[2]!]) {
		wanted = new Set([shown]);
		await look();
	}
	expect(disk.asked.filter((one) => one === "write 1/0")).toHaveLength(1);
	const written = (part: string) => disk.asked.filter((one) => one === `write ${part}`).length;
	expect([written("1/0"), written("1/1")]).toEqual([1, 1]);
	runs[0]!.take(numbers(600, 1, 1), 0);
	wanted = new Set([runs[1]!, runs[2]!]);
	await look();
	await look();
	// Rows came for one of its parts.
	expect([runs[0]!.rows.state, written("1/0"), written("1/1")]).toEqual(["shelved", 1, 2]);
});

test("rows that come for a run on the shelf fetch it and go into it", async () => {
	await look();
	const [run] = runs as [Run];
	run.take(gapFrame(0, 1), 0);
	run.take(numbers(598, 4, 7), 0);
	expect([run.rows.state, run.rows.late(1), run.rows.received, run.rows.has(601)]).toEqual([
		"shelved",
		true,
		602,
		true,
	]);
	await look();
	// Their part has come back for them, and what is unused for longer goes.
	expect(runs.map(({ rows }) => [...rows.away])).toEqual([[0], [0], []]);
	expect([597, 598, 601].map((p) => run.rows.value("b", p, 0))).toEqual([100 + 57.5, 700 + 58.5, 700 + 61.5]);
});

test("a run that is shown or changed while it leaves stays", async () => {
	disk.before = (asked) => {
		if (asked === "write 1/0") wanted.add(runs[0]!);
	};
	await look();
	expect(states()).toBe("here,shelved,here");
	wanted = new Set([runs[2]!]);
	disk.before = (asked) => {
		if (asked !== "write 1/0" || runs[0]!.rows.columns > 600) return;
		runs[0]!.take(numbers(600, 1, 5), 0);
	};
	runs[0]!.take(numbers(0, 1, 1), 0);
	shelf = new Shelving({ disk, runs: () => runs, wanted: () => all(wanted), budget: BYTES });
	await look();
	wanted.add(runs[0]!);
	await look();
	expect(runs[0]!.rows.value("a", 600, 0)).toBe(500 + 60);
});

test("of a run only the parts that are wanted come back", async () => {
	const parts = new Map<Run, ReadonlySet<number> | "all">([[runs[2]!, "all"]]);
	shelf = new Shelving({ disk, runs: () => runs, wanted: () => parts, budget: 0 });
	await look();
	expect(states()).toBe("shelved,shelved,here");
	parts.set(runs[0]!, new Set([1]));
	await look();
	expect([...runs[0]!.rows.away]).toEqual([0]);
	expect([511, 512].map((position) => runs[0]!.rows.value("a", position, 0))).toEqual([null, 100 + 62]);
});

test("what somebody holds is fetched and stays until it is let go", async () => {
	await look();
	const release = await shelf.hold(runs[0]!);
	await look();
	expect(states()).toBe("here,shelved,here");
	wanted = new Set([runs[1]!, runs[2]!]);
	await look();
	expect(states()).toBe("here,here,here");
	release();
	release();
	await settled();
	expect(states()).toBe("shelved,here,here");
});

describe("what goes from the page goes from the shelf", () => {
	test("with its run", async () => {
		await look();
		expect(disk.names).toEqual(["1/0", "1/1"]);
		runs = runs.slice(1);
		await look();
		expect(disk.names).toEqual([]);
	});

	test("while it is being written", async () => {
		const [run] = runs as [Run];
		disk.before = (asked) => {
			if (asked !== "write 1/1") return;
			runs = runs.slice(1);
			shelf.look();
		};
		await look();
		expect([disk.names, [...run.rows.away]]).toEqual([[], [0]]);
	});

	test("with its numbers, and they do not come back", async () => {
		await look();
		const [run] = runs as [Run];
		wanted.add(run);
		disk.before = (asked) => {
			if (asked === "read 1/1") run.dropNumbers();
		};
		await look();
		await look();
		expect([run.rows.state, run.rows.metrics, run.delivery.gone, disk.names.includes("1/0")]).toEqual([
			"here",
			[],
			null,
			false,
		]);
	});
});

describe("a shelf that refuses", () => {
	test("leaves everything in memory, and is asked a few times only", async () => {
		disk.refuses.add("write");
		const before = runs.map(sample);
		for (let i = 0; i < 9; i++) await look();
		expect([states(), runs.map(sample)]).toEqual(["here,here,here", before]);
		expect(disk.asked.filter((one) => one.startsWith("write"))).toHaveLength(3);
	});

	test("in the middle of a run lets go of no more, and has what it took", async () => {
		const before = sample(runs[0]!);
		disk.before = (asked) => {
			if (asked === "write 1/1") disk.refuses.add("write");
		};
		await look();
		expect([states(), [...runs[0]!.rows.away], disk.names]).toEqual(["shelved,here,here", [0], ["1/0"]]);
		wanted.add(runs[0]!);
		await look();
		expect([states(), sample(runs[0]!)]).toEqual(["here,here,here", before]);
	});

	test("or is not there at all changes nothing", async () => {
		shelf = new Shelving({ disk: null, runs: () => runs, wanted: () => new Map(), budget: 0 });
		await look();
		expect(states()).toBe("here,here,here");
		(await shelf.hold(runs[0]!))();
	});

	test("what it took is said of the run, which has no numbers then", async () => {
		await look();
		disk.refuses.add("read");
		wanted.add(runs[0]!);
		await look();
		expect([runs[0]!.delivery.gone, runs[0]!.rows.state, runs[0]!.rows.has(5)]).toEqual([LOST, "here", true]);
		await look();
		expect(states()).toBe("here,here,here");
	});
});

test("a listener hears that numbers left and that they are back", async () => {
	const batch = manualBatch();
	const run = testRun({ id: "c9", batch });
	run.take(startedFrame(["a"]), 0);
	run.take(numbers(0, 600, 4), 0);
	runs = [run, ...runs];
	const before = run.changed.version;
	await look();
	const left = run.changed.version;
	wanted.add(run);
	await look();
	expect([left > before, run.changed.version > left, run.rows.state]).toEqual([true, true, "here"]);
});
