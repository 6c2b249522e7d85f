import { beforeEach, describe, expect, test } from "vitest";
import type { Welcome } from "../protocol/types.gen";
import { startedFrame, tokensFrame } from "../testing";
import { model, ready, settings, welcome } from "../testing/lab";
import { played, type TestServer } from "../testing/server";
import type { Session } from "./session";

let server: TestServer;
let session: Session;
beforeEach(() => {
	({ server, session } = played());
});

test("nothing can be asked before the engine is ready, and each reason is a sentence", () => {
	expect(session.can.ask).toBe("There is no connection to the server now.");
	expect(session.ask("hi", settings)).toBe(false);
	server.say({
		...welcome,
		engine: { state: "loading", stage: "Loading weights.", progress: 0.4 },
		model: null,
	});
	expect(session.can.ask).toBe("The engine is still loading.");
	server.say(ready);
	expect(session.can.ask).toBeNull();
	expect(session.server.model).toEqual(model);
	expect(server.starts).toEqual([]);
});

test("why nothing can be asked while the engine is built again or the server ends", () => {
	server.say({ ...welcome, engine: { state: "loading", stage: "", progress: 0 } });
	expect(session.can.ask).toBe("The engine is still loading.");
	server.say(ready);
	server.say({ ...ready, state: "loading", stage: "The engine failed; a new one is loading." });
	expect(session.can.ask).toBe("The engine is being started again. You can write your question already.");
	server.say({ ...ready, state: "draining" });
	expect(session.can.ask).toBe("The server is about to end and takes no new questions.");
});

test("an aside is no part of the conversation and goes with the chat", () => {
	server.say(welcome);
	server.turn("one", ["A"], "r1");
	session.aside("/active", "Nothing is steered.");
	expect(session.asides[0]).toMatchObject({ after: 1, said: "/active", answer: "Nothing is steered." });
	session.ask("two", settings);
	expect(server.starts[1]!.messages.length).toBe(3);
	session.newChat();
	expect(session.asides).toEqual([]);
});

describe("what a person is told when another server answers", () => {
	/** The connection goes, and a server with this welcome answers the next try. */
	function comeBack(next: Partial<Welcome>) {
		server.breakOff();
		server.comeBack({ ...welcome, ...next });
	}

	test("nothing at the first connection, nor when the same one answers again", () => {
		server.say(welcome);
		expect(session.moved).toBeNull();
		comeBack({});
		expect(session.moved).toBeNull();
	});

	test("a restart, and that the conversation was kept", () => {
		server.say(welcome);
		server.turn("one", ["A"], "r1");
		comeBack({ epoch: "e2" });
		expect(session.moved).toBe("The server was restarted. Your conversation was kept.");
		session.dismissMoved();
		expect(session.moved).toBeNull();
	});

	test("another server by its name, and that the reply in progress ended", () => {
		server.say(welcome);
		session.ask("one", settings);
		server.say(startedFrame(["p"], server.starts[0]!.id, "r1"));
		server.say(tokensFrame(1, ["A"], undefined, "r1"));
		comeBack({ epoch: "e2", name: "replica-b" });
		expect(session.moved).toBe(
			"You are now on another server (replica-b). Your conversation was kept. " +
				"The reply that was being written ended there.",
		);
		expect(session.turns[0]!.run.delivery.phase).toBe("lost");
		expect(session.can.ask).toBeNull();
	});
});
