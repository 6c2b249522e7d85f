"""The wire against the real engine: steering while it writes, clients that vanish, frames that are wrong."""

from __future__ import annotations

import asyncio
import logging
import math

import httpx
import msgpack
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from steersight.client import SteersightError
from steersight.client import connect as dial_client
from steersight.protocol import codec, messages
from steersight.protocol.messages import (
    Applied,
    Error,
    Finished,
    Pong,
    Start,
    Steer,
    Stop,
    Tokens,
    VectorSetting,
)

from .conftest import GRACE_SECONDS, Server
from .reference import Reference
from .test_engine_truth import directions
from .wire import Wire, dial, greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


async def test_welcome_names_model_metrics_and_vectors(server: Server) -> None:
    async with dial(server.address) as wire:
        welcome = wire.frames[0]
    assert welcome.engine.state == "ready"
    assert (welcome.model.layers, welcome.model.hidden_size) == (30, 576)
    defaults = [metric.id for metric in welcome.metrics if metric.default]
    assert defaults == ["residual_norm", "update_norm", "cosine_below"]
    named = {metric.id for metric in welcome.metrics}
    assert {
        "lens_kl",
        "attention_share",
        "projection:north",
        "projection_before:east",
        "probe_question",
    } <= named
    assert {"north", "east"} <= {vector.id for vector in welcome.vectors}


async def test_a_change_while_the_reply_is_written(server: Server, reference: Reference) -> None:
    strengths = {"north": 0.4, "east": -0.3}
    neighbours = ["What is the capital of France?", "Write a haiku about autumn.", "Who wrote Hamlet?"]
    async with dial(server.address) as wire:
        run = await wire.start("me", "Tell me about Paris.", sampling=greedy(64))
        others = [await wire.start(f"n{i}", text, sampling=greedy(48)) for i, text in enumerate(neighbours)]
        await wire.until(lambda _: len(wire.of(run, Tokens)) > 0 and len(wire.ids(run)[1]) >= 12)
        await wire.send(Steer(run=run, rev=1, strengths=strengths))
        prompt, reply = wire.ids(run)
        newest = len(prompt) + len(reply) - 1  # what the server had sent when we asked
        await wire.until(lambda f: isinstance(f, Applied) and f.run == run)
        await wire.until(lambda _: len(wire.ids(run)[1]) >= 40)
        await wire.send(Steer(run=run, rev=2, strengths={}))
        waiting = {run, *others} - {f.run for f in wire.frames if isinstance(f, Finished)}
        while waiting:
            finished = await wire.until(lambda f: isinstance(f, Finished))
            waiting.discard(finished.run)

        prompt, reply = wire.ids(run)
        ids, revs = prompt + reply, wire.revs(run)
        assert len(revs) == len(ids) - 1
        assert revs == sorted(revs), "a revision went back"
        assert set(revs) == {0, 1, 2}
        first = revs.index(1)
        assert first <= newest + 2, f"asked at position {newest}, in force at {first}"
        assert [(a.rev, a.position) for a in wire.of(run, Applied)] == [(1, first), (2, revs.index(2))]

        push = directions(server, strengths)
        reading = reference.read(
            ids, lambda position: push if revs[min(position, len(revs) - 1)] == 1 else []
        )
        assert reading.differing(ids, len(prompt)) == [], "rows name another revision than was computed"
        # Before the change the reply is the unsteered one; after it, it is another.
        plain = reference.read(ids)
        different = plain.differing(ids, len(prompt))
        assert different, "steering changed nothing"
        assert different[0] > first

        for other in others:
            prompt, reply = wire.ids(other)
            assert reference.read(prompt + reply).differing(prompt + reply, len(prompt)) == []
            assert set(wire.revs(other)) == {0}


async def test_steering_before_the_first_step_is_in_force_from_the_start(server: Server) -> None:
    async with dial(server.address) as wire:
        start = messages.Start(
            id="early", messages=[messages.ChatMessage(role="user", content="Hello")], sampling=greedy(4),
            read_cache=False,
        )  # fmt: skip
        await wire.send(start)
        started = await wire.until(lambda f: isinstance(f, messages.Started))
        await wire.send(Steer(run=started.run, rev=5, strengths={"north": 0.2}))
        await wire.until(lambda f: isinstance(f, Finished))
        revs = wire.revs(started.run)
        assert revs == sorted(revs)
        assert revs[-1] == 5
        assert [a.position for a in wire.of(started.run, Applied)] == [revs.index(5)]


async def test_stop_ends_a_run_and_may_come_twice(server: Server) -> None:
    async with dial(server.address) as wire:
        run = await wire.start("s", "Count to a thousand.", sampling=greedy(500))
        await wire.until(lambda f: isinstance(f, Tokens))
        await wire.send(Stop(run=run))
        finished = await wire.until(lambda f: isinstance(f, Finished))
        assert finished.reason == "cancelled"
        await wire.send(Stop(run=run))
        await wire.send(messages.Ping(t=1.5))
        assert (await wire.until(lambda f: isinstance(f, Pong | Error))) == Pong(t=1.5)


async def gauges(address: str) -> dict[str, float]:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://{address}/metrics")).text
    return {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if line.startswith("steersight_")
    }


async def test_a_client_that_vanishes_leaves_nothing_behind(server: Server) -> None:
    async with dial(server.address) as wire:
        for i in range(3):
            await wire.start(f"v{i}", "Tell me a very long story.", sampling=greedy(1000))
        await wire.until(lambda f: isinstance(f, Tokens))
        busy = await gauges(server.address)
        assert busy["steersight_runs_live"] == 3
        assert busy["steersight_engine_requests"] == 3
        wire.socket.transport.abort()
    # They go on for the grace time, in case the client comes back.
    assert (await gauges(server.address))["steersight_runs_live"] == 3
    async with asyncio.timeout(GRACE_SECONDS + 10):
        while True:
            now = await gauges(server.address)
            if now["steersight_runs_live"] == 0 and now["steersight_engine_requests"] == 0:
                break


def start_map(**changes: object) -> bytes:
    frame = messages.Start(id="x", messages=[messages.ChatMessage(role="user", content="hi")]).model_dump()
    packed: bytes = msgpack.packb({**frame, **changes})
    return packed


BAD_FRAMES = {
    "not msgpack": (b"\xc1\xff", "bad_frame", None),
    "empty": (b"", "bad_frame", None),
    "no map": (msgpack.packb([1, 2]), "bad_frame", None),
    "no type": (msgpack.packb({}), "unknown_type", "type"),
    "unknown type": (msgpack.packb({"type": "launch"}), "unknown_type", "type"),
    "wrong type": (start_map(messages="hi"), "invalid", "messages"),
    "NaN": (start_map(strengths={"north": math.nan}), "invalid", "strengths.north"),
    "infinity": (msgpack.packb({"type": "ping", "t": math.inf}), "invalid", "t"),
    "too strong": (start_map(strengths={"north": 1e9}), "invalid", "strengths.north"),
    "unknown field": (start_map(surprise=1), "invalid", "surprise"),
    "unknown vector": (start_map(strengths={"nobody": 1.0}), "unknown_vector", "strengths"),
    "unknown metric": (start_map(metrics=["nobody"]), "unknown_metric", "metrics"),
    "unknown run": (msgpack.packb({"type": "stop", "run": "nobody"}), "unknown_run", "run"),
    "prompt too long": (
        start_map(messages=[{"role": "user", "content": "word " * 4000}]), "prompt_too_long", "messages",
    ),
    "second hello": (msgpack.packb({"type": "hello", "token": None}), "unexpected", None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_gets_a_sentence_and_costs_nothing(server: Server, name: str) -> None:
    data, code, field = BAD_FRAMES[name]
    async with dial(server.address) as wire:
        await wire.socket.send(data)
        error = await wire.until(lambda f: isinstance(f, Error))
        assert error.code == code, error
        assert error.field == field
        assert error.message[0].isupper()
        assert error.message.rstrip(")").endswith(".")
        run = await wire.start("after", "Say hi.", sampling=greedy(2))
        finished = await wire.until(lambda f: isinstance(f, Finished))
        assert finished.run == run


async def closed_with(wire: Wire) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        await wire.until(lambda _: False)
    received = closed.value.rcvd
    assert received is not None
    return received.code


async def test_frames_that_end_the_connection(server: Server) -> None:
    async with dial(server.address) as wire:
        await wire.socket.send("hello")
        assert await closed_with(wire) == 4415
    async with dial(server.address) as wire:
        await wire.socket.send(b"\x00" * (messages.MAX_FRAME_BYTES + 1))
        assert await closed_with(wire) == 4413
        assert wire.frames[-1].code == "too_large"
    async with dial(server.address, hello=False) as wire:
        await wire.send(messages.Ping(t=0.0))
        assert await closed_with(wire) == 4400
    async with dial(server.address) as wire:
        for _ in range(30):
            await wire.socket.send(b"\xc1")
        assert await closed_with(wire) == 4429


async def test_handshakes_that_are_refused(server: Server) -> None:
    url = f"ws://{server.address}/ws"
    async with connect(url) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4406
    protocols = [Subprotocol(messages.SUBPROTOCOL)]
    with pytest.raises(InvalidStatus) as denied:
        await connect(url, subprotocols=protocols, origin=Origin("http://elsewhere.example"))
    assert denied.value.response.status_code == 403


async def test_revisions_must_rise_and_vectors_must_exist(server: Server) -> None:
    async with dial(server.address) as wire:
        run = await wire.start("r", "Count to a hundred.", sampling=greedy(200))
        await wire.send(Steer(run=run, rev=3, strengths={"north": 0.1}))
        await wire.until(lambda f: isinstance(f, Applied))
        await wire.send(Steer(run=run, rev=3, strengths={}))
        assert (await wire.until(lambda f: isinstance(f, Error))).code == "stale_revision"
        await wire.send(Steer(run=run, rev=4, strengths={"nobody": 0.1}))
        assert (await wire.until(lambda f: isinstance(f, Error))).code == "unknown_vector"
        await wire.send(Stop(run=run))
        await wire.until(lambda f: isinstance(f, Finished))


def is_error(frame: object) -> bool:
    return isinstance(frame, Error)


async def test_a_setting_that_cannot_be_is_refused_and_changes_nothing(server: Server) -> None:
    hello = messages.ChatMessage(role="user", content="Hello")
    feature = {"north": VectorSetting(operator="feature_set")}
    async with dial(server.address) as wire:
        await wire.send(Start(id="s", messages=[hello], strengths={"north": 1.0}, settings=feature))
        error = await wire.until(is_error)
        assert (error.code, error.field, error.id) == ("invalid", "settings", "s")
        assert "north cannot do 'feature_set'" in error.message
        await wire.send(Start(id="t", messages=[hello], sampling=greedy(60)))
        run = (await wire.until(lambda f: isinstance(f, messages.Started))).run
        beyond = {"north": VectorSetting(layers=[29, 30])}
        await wire.send(Steer(run=run, rev=1, strengths={"north": 1.0}, settings=beyond))
        error = await wire.until(is_error)
        assert (error.code, error.run) == ("invalid", run)
        assert "the model's are 0 to 29" in error.message
        ablated = {"north": VectorSetting(operator="ablate")}
        await wire.send(Steer(run=run, rev=2, strengths={"north": 1.0}, settings=ablated))
        assert (await wire.until(lambda f: isinstance(f, Applied))).rev == 2


async def test_a_reply_is_written_on_as_if_it_had_not_been_interrupted(server: Server) -> None:
    question = {"role": "user", "content": "Write a short poem about the sea."}
    async with dial_client(f"ws://{server.address}/ws") as client:
        whole = await client.start([question], sampling=greedy(40), metrics=[])
        await whole.wait()
        half = await client.start([question], sampling=greedy(20), metrics=[])
        await half.wait()
        begun = [question, {"role": "assistant", "content": half.text}]
        rest = await client.start(begun, write_on=True, sampling=greedy(20), metrics=[])
        await rest.wait()
        assert rest.prompt.ids == whole.prompt.ids + half.ids, "the reply so far was read as other tokens"
        assert half.text + rest.text == whole.text
        # From its ids too, whatever its text would become.
        branch = await client.start([question], prefix_ids=half.ids, sampling=greedy(20), metrics=[])
        await branch.wait()
        assert branch.prompt.ids == whole.prompt.ids + half.ids
        assert branch.ids == whole.ids[20:]
        with pytest.raises(SteersightError, match="the last message must be the assistant's"):
            await client.start([question], write_on=True)


async def test_text_of_prompt_and_reply_is_whole(server: Server) -> None:
    async with dial(server.address) as wire:
        run = await wire.start("t", "Repeat exactly: naïve café 東京 🙂", sampling=greedy(24))
        await wire.until(lambda f: isinstance(f, Finished))
        prompt = wire.of(run, messages.Started)[0].prompt
        assert len(prompt.texts) == len(prompt.ids)
        assert "naïve café 東京 🙂" in "".join(prompt.texts)
        span = next(span for span in prompt.spans if span.role == "user")
        assert "naïve café" in "".join(prompt.texts[span.start : span.end])
        _, reply = wire.ids(run)
        pieces = "".join(text for frame in wire.of(run, Tokens) for text in frame.texts)
        assert pieces == server.engine.tokenizer.decode(reply)
        assert codec.encode(wire.frames[0])


async def test_what_people_write_is_not_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "steersight")
    secret = "Zanzibar heliotrope"
    async with dial(server.address) as wire:
        run = await wire.start("t", f"Repeat exactly: {secret}", sampling=greedy(8))
        await wire.until(lambda f: isinstance(f, Finished))
        await wire.socket.send(start_map(messages=[{"role": "user", "content": [secret]}]))
        await wire.until(lambda f: isinstance(f, Error))
        pieces = "".join(text for frame in wire.of(run, Tokens) for text in frame.texts)
    facts = [vars(record).get("facts", {}) for record in caplog.records]
    assert {"A run has started.", "A run has finished."} <= set(caplog.messages)
    finished = facts[caplog.messages.index("A run has finished.")]
    assert (finished["reason"], finished["tokens"]) == ("length", 8)
    for record in caplog.records:
        for told in (secret, pieces):
            assert told not in str(vars(record))
