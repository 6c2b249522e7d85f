"""Never lose a token: lines that break, two who watch one run, readers that lag, runs that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from steersight.client import SteersightError, connect
from steersight.protocol.messages import (
    Applied,
    AskRows,
    ChatMessage,
    Error,
    Finished,
    Gap,
    Lens,
    LensOptions,
    Queued,
    Resume,
    Resumed,
    Rows,
    Start,
    Started,
    Steer,
    Stop,
    Tokens,
    Welcome,
)
from steersight.ws import sender
from steersight.ws.pace import Pace

from .conftest import Server
from .wire import Wire, dial, greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
STORY = "Write a long story about a dragon and a lighthouse."


class Joined:
    """What a client has of one run over several connections; says so when a repeated frame says otherwise."""

    def __init__(self) -> None:
        self.seq = 0
        self.prompt: list[int] = []
        self.tokens: dict[int, int] = {}
        self.rows: dict[int, bytes] = {}
        self.finished: Finished | None = None

    def take(self, frame: object) -> None:
        match frame:
            case Started():
                self.prompt = frame.prompt.ids
            case Tokens():
                for position, token in enumerate(frame.ids, start=frame.start):
                    assert self.tokens.setdefault(position, token) == token, "a token came twice, differently"
            case Rows():
                size = len(frame.data) // frame.count
                for offset in range(frame.count):
                    row = frame.data[offset * size : (offset + 1) * size]
                    assert self.rows.setdefault(frame.start + offset, row) == row, (
                        "a row came twice, differently"
                    )
            case Finished():
                self.finished = frame
            case _:
                return
        self.seq = max(self.seq, frame.seq)

    def reply(self) -> list[int]:
        """Ids in order; there is no hole in them."""
        positions = sorted(self.tokens)
        assert positions == list(range(len(self.prompt), len(self.prompt) + len(positions)))
        return [self.tokens[position] for position in positions]

    def whole(self) -> None:
        """Every position but the last token's has its row."""
        assert sorted(self.rows) == list(range(len(self.prompt) + len(self.tokens) - 1))


async def read(wire: Wire, joined: Joined, tokens: int | None = None) -> None:
    """Take frames until the reply has so many tokens, or its end."""
    while joined.finished is None and (tokens is None or len(joined.tokens) < tokens):
        joined.take(await wire.until(lambda _: True))


async def start(wire: Wire, joined: Joined, text: str, tokens: int) -> str:
    """Start a run; what came with `started` is taken."""
    frame = Start(
        id="r", messages=[ChatMessage(role="user", content=text)], sampling=greedy(tokens), read_cache=False
    )
    await wire.send(frame)
    started = await wire.until(lambda f: isinstance(f, Started | Error))
    assert isinstance(started, Started), started
    joined.take(started)
    return started.run


async def undisturbed(server: Server, text: str, tokens: int) -> Joined:
    async with dial(server.address) as wire:
        joined = Joined()
        await start(wire, joined, text, tokens)
        await read(wire, joined)
    return joined


@asynccontextmanager
async def resumed(server: Server, run: str, after: int) -> AsyncIterator[tuple[Wire, Resumed]]:
    """Another connection that goes on with a run."""
    async with dial(server.address) as wire:
        epoch = next(frame.epoch for frame in wire.frames if isinstance(frame, Welcome))
        await wire.send(Resume(run=run, epoch=epoch, after=after))
        answer = await wire.until(lambda f: isinstance(f, Resumed | Error))
        assert isinstance(answer, Resumed), answer
        yield wire, answer


async def test_a_line_that_breaks_often_loses_nothing(server: Server) -> None:
    plain = await undisturbed(server, STORY, 48)
    joined = Joined()
    async with dial(server.address) as wire:
        run = await start(wire, joined, STORY, 48)
        await read(wire, joined, 6)
        wire.socket.transport.abort()
    for until in (14, 15, 30):
        async with resumed(server, run, joined.seq) as (wire, answer):
            assert answer.newest >= joined.seq
            await read(wire, joined, until)
            wire.socket.transport.abort()
    async with resumed(server, run, joined.seq) as (wire, _):
        await read(wire, joined)
    assert joined.reply() == plain.reply()
    assert joined.rows == plain.rows
    joined.whole()
    # A finished run is kept for a while: the same again from its first event.
    again = Joined()
    async with resumed(server, run, 0) as (wire, _):
        await read(wire, again)
    assert (again.reply(), again.rows) == (joined.reply(), joined.rows)


async def test_the_python_client_comes_back_by_itself(server: Server) -> None:
    plain = await undisturbed(server, STORY, 40)
    async with connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        run = await client.start([{"role": "user", "content": STORY}], sampling=greedy(40), read_cache=False)
        pieces = 0
        async for _ in run.texts():
            pieces += 1
            if pieces in (5, 12):
                client._socket.transport.abort()
        assert client.reconnects == 2
        assert run.ids == plain.reply()
        rows = run.rows()
        assert not np.isnan(rows[:-1]).any()


async def test_two_watch_one_run_and_both_may_steer_and_stop_it(server: Server) -> None:
    async with connect(f"ws://{server.address}/ws") as one, connect(f"ws://{server.address}/ws") as two:
        await one.ready()
        run = await one.start([{"role": "user", "content": STORY}], sampling=greedy(400))
        same = await two.watch(run.id)
        assert same.prompt == run.prompt
        async for _ in same.texts():
            if len(same.ids) >= 8:
                break
        rev = await same.steer({"north": 0.3})
        assert await run.applied(rev) == await same.applied(rev)
        assert server.table.live[run.id].strengths == {"north": 0.3}
        await same.stop()
        assert (await run.wait()).reason == "cancelled"
        await same.wait()
        assert run.ids == same.ids
        with pytest.raises(SteersightError, match="no such run") as refused:
            await two.watch("nobody")
        assert refused.value.code == "unknown_run"


async def test_what_cannot_be_resumed_is_said(server: Server) -> None:
    async with dial(server.address) as wire:
        epoch = wire.frames[0].epoch
        joined = Joined()
        run = await start(wire, joined, "Hello", 2)
        await read(wire, joined)
        for frame, code, field in (
            (Resume(run=run, epoch="another"), "other_epoch", "epoch"),
            (Resume(run="nobody", epoch=epoch), "unknown_run", "run"),
            (Resume(run=run, epoch=epoch, after=10**6), "invalid", "after"),
            (AskRows(run="nobody", start=0, count=1), "unknown_run", "run"),
        ):
            await wire.send(frame)
            error = await wire.until(lambda f: isinstance(f, Error))
            assert (error.code, error.field, error.run) == (code, field, frame.run)


async def test_a_client_that_lags_misses_rows_only_and_can_have_them_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await undisturbed(server, STORY, 40)
    # As if every look at the log found a client that had taken too long for the one before.
    monkeypatch.setattr(sender, "SLOW_SECONDS", -1.0)
    monkeypatch.setattr(Pace, "interval", lambda _self: 0.4)
    monkeypatch.setattr(sender, "MOST_LAGGING_BYTES", 1)
    joined = Joined()
    async with dial(server.address) as wire:
        run = await start(wire, joined, STORY, 40)
        await read(wire, joined)
        assert joined.reply() == plain.reply()
        gaps = wire.of(run, Gap)
        missing = {p for gap in gaps for p in range(gap.start, gap.start + gap.count)}
        assert missing
        assert all(gap.kept for gap in gaps)
        assert missing | joined.rows.keys() == plain.rows.keys()
        assert not missing & joined.rows.keys()
        for gap in gaps:
            await wire.send(AskRows(run=run, start=gap.start, count=gap.count))
        while joined.rows.keys() != plain.rows.keys():
            joined.take(await wire.until(lambda f: isinstance(f, Rows)))
        assert joined.rows == plain.rows


async def test_a_client_that_does_not_read_its_answers_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "MAX_OUTBOX", 0)
    async with dial(server.address, hello=False) as wire:
        from steersight.protocol.messages import Hello

        await wire.send(Hello())
        with pytest.raises(Exception, match="4508"):
            await wire.until(lambda _: False)


async def test_runs_beyond_the_places_wait_and_are_told_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await undisturbed(server, "Hello", 6)
    monkeypatch.setattr(server.table, "limits", replace(server.table.limits, max_runs=1, max_queue=2))
    async with dial(server.address) as first, dial(server.address) as second:
        long = await start(first, Joined(), STORY, 500)
        waiting = Joined()
        run = await start(second, waiting, "Hello", 6)
        assert (await second.until(lambda f: isinstance(f, Queued))).position == 1
        # A line may break while one waits, too; steering that is taken back before the start changes nothing.
        await second.send(Steer(run=run, rev=1, strengths={"north": 0.3}))
        await second.send(Steer(run=run, rev=2, strengths={}))
        await first.send(Stop(run=long))
        assert (await second.until(lambda f: isinstance(f, Queued))).position == 0
        await read(second, waiting)
        assert waiting.reply() == plain.reply()
        assert [a.rev for a in second.of(run, Applied)] == [2]
        assert set(second.revs(run)) == {2}


async def test_a_long_conversation_does_not_hold_up_the_others(server: Server) -> None:
    """As many and as long messages as a frame can hold are refused, and nobody waits for that."""
    messages = [ChatMessage(role="user", content="word " * 190)] * 250
    async with dial(server.address) as big, dial(server.address) as other:
        await big.send(Start(id="big", messages=messages))
        answer = asyncio.create_task(big.until(lambda f: isinstance(f, Error | Started)))
        joined = Joined()
        await start(other, joined, "Hello", 2)
        assert not answer.done() or answer.result().code == "prompt_too_long"
        await read(other, joined)
        assert (await answer).code == "prompt_too_long"


@pytest.mark.parametrize("ends_at", ["a stop string", "its end token"])
async def test_no_row_is_sent_beyond_the_last_token(server: Server, ends_at: str) -> None:
    """The engine finds either end when it may have begun the next step already."""
    question = "What is the capital of France?"
    sampling = greedy(60)
    if ends_at == "a stop string":
        question = "Tell me about Paris."
        whole = await undisturbed(server, question, 24)
        stop = server.engine.tokenizer.decode(whole.reply()[10:13])
        sampling = sampling.model_copy(update={"stop": [stop]})
    async with dial(server.address) as wire:
        runs = [
            await wire.start(f"r{i}", question, sampling=sampling, entropy=True, lens=LensOptions())
            for i in range(6)
        ]
        while len([f for f in wire.frames if isinstance(f, Finished)]) < len(runs):
            await wire.until(lambda f: isinstance(f, Finished))
        for run in runs:
            (finished,) = wire.of(run, Finished)
            assert finished.reason == "stop"
            assert (finished.stop in sampling.stop) == bool(sampling.stop)
            prompt, reply = wire.ids(run)
            assert len(reply) < 60
            assert len(wire.revs(run)) == len(prompt) + len(reply) - 1, (
                "the last token has a row, or one is lost"
            )
            guesses = [p for f in wire.of(run, Lens) for p in range(f.start, f.start + f.count)]
            assert guesses
            assert max(guesses) == len(prompt) + len(reply) - 2
            assert wire.of(run, Gap) == []
