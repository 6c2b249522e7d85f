// The real page over an engine that only pretends, and what can be done with it: `window.bench` is called by
// `backend/bench/frames.py`, one thing after the other, with a trace of the main thread taken around each.
import { createRoot } from "react-dom/client";
import { Page } from "../src/Page";
import { Playback, recordingFiles } from "../src/recording/playback";
import { Session } from "../src/session/session";
import { defaultSettings } from "../src/session/settings";
import { BrowserDisk } from "../src/store/disk";
import { digest } from "./digest";
import { PretendedEngine, type Size } from "./engine";
import { ThreeMaps } from "./maps";
import "../src/styles/base.css";
import "../src/styles/layout.css";
import "../src/styles/chat.css";
import "../src/styles/heatmap.css";
import "../src/styles/steering.css";
import "../src/styles/dialog.css";
import "../src/styles/recording.css";
import "../src/styles/motion.css";

const asked = new URLSearchParams(location.search);
const number = (name: string, usual: number) => Number(asked.get(name) ?? usual);
const size: Size = {
	layers: number("layers", 80),
	metrics: number("metrics", 20),
	positions: number("positions", 8192),
	prompt: number("prompt", 512),
	sliders: number("sliders", 4),
};
const settings = defaultSettings();
const engine = new PretendedEngine(size);
const disk = new BrowserDisk();
const session = new Session(engine.open, null, undefined, undefined, null, { disk });
addEventListener("pagehide", () => disk.end());
let maps: ThreeMaps | null = null;
let turns = 0;

session.connection.connect();
const playback = new Playback(session);
createRoot(document.getElementById("root")!).render(<Page playback={playback} />);
/** What `save` made. */
let saved = new Uint8Array(0);

const frame = () => new Promise<number>((done) => requestAnimationFrame(done));
const task = () => new Promise<void>((done) => setTimeout(done));

/** Do something in each frame for so long; `along` runs from 0 to 1. */
async function eachFrame(seconds: number, act: (along: number, count: number) => void): Promise<void> {
	const began = performance.now();
	for (let count = 0; ; count++) {
		const now = await frame();
		const along = (now - began) / (1000 * seconds);
		if (along >= 1) return;
		act(Math.max(0, along), count);
	}
}

async function deliver(packed: Uint8Array[]): Promise<void> {
	for (const bytes of packed) {
		await task();
		engine.hear(bytes);
	}
}

/** So many rows a second, each in its own message. */
async function appendRows(packed: Uint8Array[], perSecond: number): Promise<void> {
	const began = performance.now();
	for (let sent = 0; sent < packed.length; ) {
		const due = Math.min(packed.length, Math.floor(((performance.now() - began) / 1000) * 2 * perSecond));
		if (sent < due) engine.hear(packed[sent++]!);
		else await new Promise((done) => setTimeout(done, 4));
	}
}

const packedRows = { append: [] as Uint8Array[], bulk: [] as Uint8Array[] };

const bench = {
	get ready(): boolean {
		return session.server.ready;
	},

	/**
	 * A new turn, whose prompt of so many tokens is read, and of whose reply the tokens and rows before `positions` are
	 * there.
	 */
	async begin(positions: number, prompt = size.prompt): Promise<void> {
		turns += 1;
		if (!session.ask(`Tell me about the harbour, for the ${turns}th time.`, settings)) {
			throw new Error("The page did not ask.");
		}
		engine.admit(prompt);
		session.pickMetric("metric_0");
		await deliver(engine.pack(0, positions));
		await frame();
		await frame();
	},

	end(): void {
		engine.finish();
	},

	/** What `append` will say. */
	prepareAppend(from: number, rows: number): void {
		packedRows.append = engine.pack(from, from + rows, 1);
	},

	async append(perSecond: number): Promise<void> {
		await appendRows(packedRows.append, perSecond);
		await frame();
	},

	/** What `bulk` will say: a whole run, in messages as the server makes them. */
	prepareBulk(): void {
		packedRows.bulk = engine.pack(0, size.positions);
	},

	async bulk(): Promise<void> {
		await deliver(packedRows.bulk);
		await frame();
		await frame();
	},

	async pan(seconds: number): Promise<void> {
		const scrollers = document.querySelectorAll<HTMLElement>(".heatmap-scroller");
		await eachFrame(seconds, (along) => {
			const there = 0.5 - 0.5 * Math.cos(4 * Math.PI * along);
			for (const one of scrollers) one.scrollLeft = there * (one.scrollWidth - one.clientWidth);
		});
	},

	/** All of the map in other colours, in each frame: the metric is picked anew. */
	async repaint(seconds: number): Promise<void> {
		await eachFrame(seconds, (_, count) => session.pickMetric(`metric_${count % size.metrics}`));
	},

	/** An end of the legend's scale dragged to and fro: all of the map in other colours, in each frame. */
	async drag(seconds: number): Promise<void> {
		const end = document.querySelector<HTMLElement>('[data-testid="legend-hi"]')!;
		const { left, top } = end.getBoundingClientRect();
		const tell = (type: string, x: number) =>
			end.dispatchEvent(
				new PointerEvent(type, { pointerId: 1, bubbles: true, cancelable: true, clientX: x, clientY: top }),
			);
		end.setPointerCapture = () => {};
		tell("pointerdown", left);
		await eachFrame(seconds, (along) => {
			const away = 60 * Math.sin(6 * Math.PI * along);
			tell("pointermove", left + away);
			maps?.setRange({ lo: 4, hi: 8 + away / 30 });
		});
		tell("pointerup", left);
	},

	/** A slider dragged to and fro. */
	async slide(seconds: number): Promise<void> {
		const slider = document.querySelector<HTMLInputElement>('[data-testid="slider-vector_0"]')!;
		const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value")!.set!;
		await eachFrame(seconds, (along) => {
			set.call(slider, String((0.9 * Math.sin(6 * Math.PI * along)).toFixed(2)));
			slider.dispatchEvent(new Event("input", { bubbles: true }));
		});
	},

	/** A digest of all numbers of the shown run; null while they are on the shelf. */
	digest(): number | null {
		return digest(session.shown!.rows);
	},

	/** How many of the turns' runs have their numbers on the shelf. */
	shelved(): number {
		return session.turns.filter(({ run }) => run.rows.state === "shelved").length;
	},

	/** Delete what pages left on disk that are over. */
	sweep: () => disk.sweep(),

	/** Show the reply of a turn, counted from 0, and wait for its map; gives ms. */
	async show(turn: number): Promise<number> {
		const began = performance.now();
		const { run } = session.turns[turn]!;
		session.show(run);
		while (run.rows.state === "shelved") await task();
		await frame();
		return performance.now() - began;
	},

	/** The conversation as a recording. */
	async save(): Promise<number> {
		const { conversationBytes } = await recordingFiles();
		saved = new Uint8Array((await conversationBytes(session, null, new Date())).bytes);
		return saved.length;
	},

	/** What was saved, opened in the place of the page, up to its last row. */
	async open(): Promise<void> {
		await playback.open("The bench's recording", async () => saved);
		if (playback.problem !== null) throw new Error(playback.problem);
		const run = () => playback.replay!.session.shown;
		while ((run()?.rows.columns ?? 0) < size.positions) await frame();
		await frame();
		await frame();
	},

	/** Three maps of the shown run below the page. */
	showMaps(on: boolean): void {
		maps?.dispose();
		maps = on ? new ThreeMaps(document.getElementById("maps")!, session, engine.metrics) : null;
	},
};
export type Bench = typeof bench;
Object.assign(window, { bench });
