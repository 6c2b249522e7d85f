// From which position on rows of a later turn are asked for: those in front are there already.
import { beforeEach, expect, test } from "vitest";
import { finishedFrame, gapFrame, rowsFrame, startedFrame, tokensFrame } from "../testing";
import { model, settings, welcome } from "../testing/lab";
import { played, type TestServer } from "../testing/server";
import type { Session } from "./session";

let server: TestServer;
let session: Session;

/** The newest start is admitted under this prompt, its rows up to the last token but one come, and it ends. */
function written(prompt: readonly string[], run: string, rows: [number, number] = [0, prompt.length]): void {
	server.say({ ...startedFrame(prompt, server.starts.at(-1)!.id, run), model: "tiny" });
	server.say({ ...rowsFrame(rows[0], rows[1] - rows[0]), run });
	server.say(tokensFrame(prompt.length, ["A"], undefined, run), finishedFrame({ run }));
}

const asked = () => server.starts.map(({ rows_from }) => rows_from);

beforeEach(() => {
	({ server, session } = played());
	// So many layers that two tokens weigh more than a megabyte.
	server.say({ ...welcome, model: { ...model, layers: 300_000 } });
	session.ask("one", settings);
	written(["p", "q"], "r1");
});

test("a later turn asks for the rows behind the prompt of the one before", () => {
	session.ask("two", settings);
	written(["p", "q", "A", "r", "s"], "r2", [2, 5]);
	session.ask("three", settings);
	expect(asked()).toEqual([0, 2, 5]);
	// And its map has those of all three.
	expect(session.turns.at(-2)!.run.rows.has(0)).toBe(false);
	session.show(session.turns[1]!.run);
	expect([session.strip!.received, session.strip!.owner(0)]).toEqual([5, session.turns[0]!.run]);
});

test("a short conversation comes whole with every turn", () => {
	session.newChat();
	server.say(welcome);
	session.ask("one", settings);
	written(["p", "q"], "r2");
	session.ask("two", settings);
	expect(asked()).toEqual([0, 0, 0]);
});

test("all rows are asked for where the prompt begins otherwise, or nobody has them", () => {
	session.ask("two", { ...settings, system: "Be brief." });
	server.refuse(server.starts.at(-1)!.id);
	session.ask("two", { ...settings, template: { enable_thinking: false } });
	server.refuse(server.starts.at(-1)!.id);
	session.regenerate(settings);
	written(["p", "q"], "r2", [1, 2]);
	session.ask("two", settings);
	// This model's template is told nothing, so the second question began as the first.
	expect(asked()).toEqual([0, 0, 2, 0, 0]);
});

test("a reply that is written on is read again from its first token on", () => {
	session.ask("two", settings);
	server.say({ ...startedFrame(["p", "q", "A", "r"], server.starts.at(-1)!.id, "r2"), model: "tiny" });
	server.say({ ...rowsFrame(2, 2), run: "r2" }, tokensFrame(4, ["B"], undefined, "r2"));
	server.say(finishedFrame({ run: "r2", reason: "length" }));
	session.writeOn(settings);
	expect(asked()).toEqual([0, 2, 0]);
});

test("the conversation as it was read for a reply is computed for the asking, and taken back", () => {
	session.ask("two", settings);
	const prompt = ["p", "q", "A", "r", "s"];
	const run = session.turns[1]!.run;
	server.say({ ...startedFrame(prompt, server.starts.at(-1)!.id, "r2"), model: "tiny" });
	server.say({ ...gapFrame(0, 2, { cached: true }), run: "r2" }, { ...rowsFrame(2, 3), run: "r2" });
	server.say(tokensFrame(5, ["B"], undefined, "r2"), finishedFrame({ run: "r2" }));
	expect([session.strip!.unread, session.strip!.owner(0)]).toEqual([0, session.turns[0]!.run]);
	session.reread(run, true);
	expect(server.starts.at(-1)).toMatchObject({
		rows_from: 0,
		read_cache: false,
		sampling: { max_tokens: 1 },
	});
	expect(session.strip!.unread).toBe(2);
	server.say({ ...startedFrame(prompt, server.starts.at(-1)!.id, "r3"), model: "tiny" });
	server.say({ ...rowsFrame(0, 5, { value: () => 9 }), run: "r3" }, finishedFrame({ run: "r3" }));
	expect([session.strip!.unread, session.strip!.owner(0), run.rows.value("norm", 0, 0)]).toEqual([0, run, 9]);
	session.reread(run, false);
	expect(session.strip!.owner(0)).toBe(session.turns[0]!.run);
	// It is there now, and not computed once more.
	session.reread(run, true);
	expect(server.starts.length).toBe(3);
});
