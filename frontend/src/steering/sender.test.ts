import { beforeEach, describe, expect, test } from "vitest";
import type { Timers } from "../connection/clock";
import { chance } from "../testing";
import { STEER_EVERY_MS, SteerSender } from "./sender";
import type { Strengths } from "./setting";

class Clock implements Timers {
	time = 0;
	due: { at: number; callback: () => void } | null = null;
	now = () => this.time;
	setTimeout(callback: () => void, ms: number) {
		expect(this.due).toBeNull();
		this.due = { at: this.time + ms, callback };
		return 1;
	}
	clearTimeout() {
		this.due = null;
	}
	advance(ms: number) {
		this.time += ms;
		if (this.due !== null && this.due.at <= this.time) {
			const { callback } = this.due;
			this.due = null;
			callback();
		}
	}
}

let clock: Clock;
let sent: { at: number; rev: number; strengths: Strengths }[];
let sender: SteerSender<Strengths>;
let line: boolean;
beforeEach(() => {
	line = true;
	clock = new Clock();
	sent = [];
	sender = new SteerSender(
		(rev, strengths) => line && sent.push({ at: clock.time, rev, strengths }) > 0,
		clock,
	);
});

describe("SteerSender", () => {
	test("the first change goes at once, the last of a burst after the interval", () => {
		sender.change({ joy: 0.1 });
		sender.change({ joy: 0.2 });
		sender.change({ joy: 0.3 });
		expect(sent).toEqual([{ at: 0, rev: 1, strengths: { joy: 0.1 } }]);
		clock.advance(STEER_EVERY_MS);
		expect(sent.at(-1)).toEqual({ at: STEER_EVERY_MS, rev: 2, strengths: { joy: 0.3 } });
		clock.advance(1000);
		expect(sent.length).toBe(2);
	});

	test("whatever the hand does: never too often, revisions count up, the last value arrives", () => {
		const random = chance(11);
		let last = 0;
		for (let i = 0; i < 2000; i++) {
			clock.advance(Math.floor(random() * 20));
			if (random() < 0.6) {
				last = i;
				sender.change({ joy: i });
			}
		}
		clock.advance(STEER_EVERY_MS);
		expect(sent.at(-1)!.strengths).toEqual({ joy: last });
		for (let i = 1; i < sent.length; i++) {
			expect(sent[i]!.rev).toBe(sent[i - 1]!.rev + 1);
			expect(sent[i]!.at - sent[i - 1]!.at).toBeGreaterThanOrEqual(STEER_EVERY_MS);
		}
	});

	test("while nothing can be sent the last change waits, and keeps its revision", () => {
		sender.change({ joy: 1 });
		line = false;
		clock.advance(STEER_EVERY_MS);
		sender.change({ joy: 2 });
		expect([sender.held, sender.rev]).toEqual([true, 1]);
		sender.change({ joy: 3 });
		clock.advance(1000);
		line = true;
		sender.release();
		expect(sent.slice(1)).toEqual([{ at: clock.time, rev: 2, strengths: { joy: 3 } }]);
	});

	test("held back by hand it sends nothing, also not what was planned", () => {
		sender.change({ joy: 1 });
		sender.change({ joy: 2 });
		sender.hold();
		clock.advance(1000);
		expect(sent.length).toBe(1);
		sender.release();
		expect(sent.length).toBe(2);
		sender.hold();
		sender.release();
		expect(sent.length).toBe(2);
	});

	test("revisions of others are stepped over, and never go back", () => {
		sender.atLeast(7);
		sender.change({ joy: 1 });
		sender.atLeast(3);
		clock.advance(1000);
		sender.change({ joy: 2 });
		expect(sent.map(({ rev }) => rev)).toEqual([8, 9]);
	});

	test("nothing is sent after the end", () => {
		sender.change({ joy: 1 });
		sender.change({ joy: 2 });
		sender.end();
		clock.advance(1000);
		expect(sent.length).toBe(1);
	});

	test("nextRev is the revision that a waiting change will get", () => {
		sender.change({ joy: 1 });
		sender.change({ joy: 2 });
		const promised = sender.nextRev;
		clock.advance(STEER_EVERY_MS);
		expect(sent.at(-1)!.rev).toBe(promised);
	});
});
