// Rows that the engine did not compute because it had them in its cache: computed for the asking, by a run that is
// shown nowhere.
import { beforeEach, describe, expect, test } from "vitest";
import type { Run } from "../store/run";
import {
	appliedFrame,
	errorFrame,
	finishedFrame,
	gapFrame,
	rowsFrame,
	startedFrame,
	tokensFrame,
} from "../testing";
import { settings, welcome } from "../testing/lab";
import { played, type TestServer } from "../testing/server";
import { LINE_LOST, NOT_SENT, OTHER_TEXT } from "./filling";
import type { Session } from "./session";

const PROMPT = ["a", "b", "c", "d"];

let server: TestServer;
let session: Session;
let reply: Run;
beforeEach(() => {
	({ server, session } = played());
	server.say(welcome);
	session.ask("one", settings);
	server.say(
		startedFrame(PROMPT, server.starts[0]!.id, "r1"),
		gapFrame(0, 3, { cached: true }),
		{ ...rowsFrame(3, 1), run: "r1" },
		tokensFrame(4, ["A"], undefined, "r1"),
		finishedFrame({ run: "r1" }),
	);
	reply = session.turns[0]!.run;
});

const admit = (prompt = PROMPT) => server.say(startedFrame(prompt, server.starts[1]!.id, "r2"));
const missing = () => PROMPT.map((_, position) => (reply.rows.has(position) ? "#" : ".")).join("");

test("the same start once more, without the cache and with one token, fills the map and nothing else", () => {
	expect([missing(), session.fillingOf(reply)]).toEqual(["...#", { kind: "possible", problem: null }]);
	session.fill(reply);
	const [first, second] = server.starts;
	expect(second).toEqual({
		...first,
		id: second!.id,
		sampling: { ...first!.sampling, max_tokens: 1 },
		lens: null,
		entropy: false,
		read_cache: false,
	});
	expect(second!.id).not.toBe(first!.id);
	expect(session.fillingOf(reply)).toEqual({ kind: "under-way" });
	admit();
	const row = reply.rows.value("norm", 3, 0);
	server.say({ ...rowsFrame(0, 2, { value: () => 9 }), run: "r2" });
	expect(missing()).toBe("##.#");
	server.say({ ...rowsFrame(2, 2, { value: () => 9 }), run: "r2" }, tokensFrame(4, ["B"], undefined, "r2"));
	server.say(finishedFrame({ run: "r2" }));
	expect(missing()).toBe("####");
	expect([reply.rows.value("norm", 2, 1), reply.rows.value("norm", 3, 0)]).toEqual([9, row]);
	expect([session.turns.length, reply.replyText(), session.shown]).toEqual([1, "A", reply]);
	expect(session.fillingOf(reply)).toEqual({ kind: "never" });
	expect(server.stops).toEqual([]);
});

describe("what cannot be filled says why, and can be tried again", () => {
	const problem = () => {
		const filled = session.fillingOf(reply);
		return filled.kind === "possible" ? filled.problem : filled.kind;
	};
	beforeEach(() => session.fill(reply));

	test("the server refuses", () => {
		server.refuse(server.starts[1]!.id);
		expect([problem(), session.notice, missing()]).toEqual(["All places are taken.", null, "...#"]);
		session.fill(reply);
		expect(problem()).toBe("under-way");
	});

	test("the prompt is made of other tokens now", () => {
		admit(["x", "y", "z"]);
		expect([problem(), missing()]).toEqual([OTHER_TEXT, "...#"]);
		expect(server.stops).toEqual([{ type: "stop", run: "r2" }]);
		server.say({ ...rowsFrame(0, 3), run: "r2" });
		expect(missing()).toBe("...#");
	});

	test("the line is lost", () => {
		admit();
		server.breakOff();
		expect(problem()).toBe(LINE_LOST);
		server.comeBack(welcome);
		session.fill(reply);
		expect(problem()).toBe("under-way");
	});

	test("it fails, or brings too little", () => {
		admit();
		server.say(errorFrame({ code: "internal", message: "It broke.", run: "r2" }));
		expect(problem()).toBe("It broke.");
		session.fill(reply);
		server.say(startedFrame(PROMPT, server.starts[2]!.id, "r3"), finishedFrame({ run: "r3" }));
		expect(problem()).toBe(NOT_SENT);
	});
});

test("rows that were skipped for a slow reader are asked for before it ends", () => {
	session.fill(reply);
	admit();
	server.say({ ...gapFrame(0, 3, { kept: true }), run: "r2" }, finishedFrame({ run: "r2" }));
	expect(session.fillingOf(reply)).toEqual({ kind: "under-way" });
	expect(server.all("rows")).toEqual([{ type: "rows", run: "r2", start: 0, count: 3 }]);
	server.say({ ...rowsFrame(0, 3), run: "r2" });
	expect(missing()).toBe("####");
	expect(session.fillingOf(reply)).toEqual({ kind: "never" });
});

test("a new chat stops it", () => {
	session.fill(reply);
	admit();
	session.newChat();
	expect(server.stops).toEqual([{ type: "stop", run: "r2" }]);
});

test("a slider that was moved before the engine began leaves nothing to compute it by", () => {
	reply.take({ ...appliedFrame(1, 3), run: "r1" }, 0);
	expect(session.fillingOf(reply)).toEqual({ kind: "never" });
});

test("another life of the server may read the tokens otherwise", () => {
	server.breakOff();
	server.comeBack({ ...welcome, epoch: "e2" });
	expect(session.fillingOf(reply)).toEqual({ kind: "never" });
});
