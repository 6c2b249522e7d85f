"""One connection's loops, over a transport that a test fills and empties, and an engine that obeys.

What a person meets is tested with the real ones (test_server.py, test_delivery.py); here are the cases that
need a prompt that takes long, or an event loop that stands still.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import torch
from starlette.websockets import WebSocket

from steersight.engine.service import EngineService
from steersight.engine.status import EnginePhase
from steersight.protocol import codec
from steersight.protocol.messages import (
    SUBPROTOCOL,
    ChatMessage,
    Engine,
    Error,
    Frame,
    Hello,
    Ping,
    Pong,
    Prompt,
    Sampling,
    Start,
    Started,
    StartTogether,
    Steer,
    Stop,
    Welcome,
)
from steersight.runs import table as table_module
from steersight.runs.prompt import Built
from steersight.telemetry import Telemetry
from steersight.ws import connection as module
from steersight.ws import sender
from steersight.ws.admissions import MAX_PENDING
from steersight.ws.connection import Connection
from steersight.ws.handshake import Offering
from steersight.ws.pace import Pace
from steersight.ws.transport import SEND_ALL, WRITABLE
from steersight.ws.visits import Visit

from .banks import steering_vector
from .test_run_table import Table, Texts


class Socket:
    """What Starlette's WebSocket is to a connection."""

    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.writable.set()
        self.scope = {
            "subprotocols": [SUBPROTOCOL],
            "extensions": {WRITABLE: self.writable, SEND_ALL: lambda messages: self.on_send(messages)},
        }
        self.on_send: Callable[[Sequence[bytes]], None] = self._send_all
        self.frames: list[Any] = []
        self.closed: int | None = None
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Event()

    async def accept(self, subprotocol: str | None) -> None:
        pass

    async def receive(self) -> dict[str, Any]:
        return await self._in.get()

    def _send_all(self, messages: Sequence[bytes]) -> None:
        self.frames += map(codec.decode_server, messages)
        self._changed.set()

    async def close(self, code: int, _reason: str) -> None:
        self.closed = code
        self._changed.set()

    def say(self, *frames: Frame) -> None:
        for frame in frames:
            self._in.put_nowait({"type": "websocket.receive", "bytes": codec.encode(frame)})

    def leave(self) -> None:
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def until(self, there: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not there():
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]


class Anyone:
    """A visit without limits."""

    def may_enter(self, token: str | None) -> None:
        pass

    def may_send(self) -> None:
        pass

    def may_start(self, name: str, runs: int = 1) -> None:
        pass

    def may_steer(self, run: str) -> None:
        pass


class Tokenizing:
    """Makes prompts when it is let."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = 0

    def __call__(self, _tokenizer: Any, _messages: Any, _limit: int, **_: Any) -> Built:
        self.begun += 1
        self.go_on.wait()
        return Built(Prompt(ids=[1, 2, 3, 4, 5], texts=list("abcde"), spans=[]), Texts(), None)


@pytest.fixture
def tokenizing(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Tokenizing()
    monkeypatch.setattr(table_module, "build_prompt", made)
    yield made
    made.go_on.set()


LONG = Sampling(max_tokens=1000)
"""All that the model has room for: 100 tokens with the prompt."""


def offering_of(table: Table) -> Offering:
    return Offering(cast(EngineService, table.engine), table.table.limits, "t", "e")


@asynccontextmanager
async def connected(
    table: Table, hello_after: float = 0.0, offering: Offering | None = None, pace: Pace | None = None
) -> AsyncIterator[tuple[Socket, Connection]]:
    socket = Socket()
    connection = Connection(
        cast(WebSocket, socket), cast(EngineService, table.engine), table.table,
        offering or offering_of(table), cast(Visit, Anyone()), Telemetry(), pace or Pace(),
    )  # fmt: skip
    serving = asyncio.create_task(connection.serve())
    asyncio.get_running_loop().call_later(hello_after, socket.say, Hello())
    await socket.until(lambda: socket.of(Welcome) or socket.closed)
    try:
        yield socket, connection
    finally:
        socket.leave()
        await serving
        await table.table.end_all()


def start(name: str) -> Start:
    return Start(id=name, messages=[ChatMessage(role="user", content="hi")])


async def test_starts_that_take_long_hold_up_nothing_else(tokenizing: Tokenizing) -> None:
    table = Table()
    async with connected(table) as (socket, connection):
        socket.say(start("first"))
        await socket.until(lambda: socket.of(Started))
        run = table.table.live[socket.of(Started)[0].run]
        tokenizing.go_on.clear()
        names = [f"s{number}" for number in range(10)]
        socket.say(*map(start, names), Steer(run=run.id, rev=1, strengths={}), Ping(t=1.0))
        await socket.until(lambda: socket.of(Pong))
        assert run.rev == 1
        assert len(socket.of(Started)) == 1, "the starts behind it have been admitted"
        socket.say(Stop(run=run.id))
        await run.over()
        told = asyncio.create_task(connection.told())
        await asyncio.sleep(0.05)
        assert not told.done(), "the answers to the starts are still to come"
        tokenizing.go_on.set()
        await socket.until(lambda: len(socket.of(Started)) == 11)
        assert [frame.id for frame in socket.of(Started)] == ["first", *names]
        await told


def together(name: str, *starts: Start) -> StartTogether:
    return StartTogether(id=name, starts=list(starts))


async def test_starts_that_are_admitted_together_are_each_started(tokenizing: Tokenizing) -> None:
    table = Table(max_runs=3)
    async with connected(table) as (socket, _):
        socket.say(start("one"), together("pair", start("a"), start("b")), start("last"))
        await socket.until(lambda: len(socket.of(Started)) == 4)
        assert [frame.id for frame in socket.of(Started)] == ["one", "a", "b", "last"]
        assert [run.begun for run in table.table.live.values()] == [True, True, True, False]
        assert tokenizing.begun == 4


@pytest.mark.parametrize(
    ("frame", "code", "field", "sentence"),
    [
        (together("a", start("a"), start("b")), "duplicate_run", "starts.0.id", "used the id 'a' already"),
        (together("g", start("b"), start("b")), "duplicate_run", "starts.1.id", "used the id 'b' already"),
        (together("g", start("one"), start("b")), "duplicate_run", "starts.0.id", "the id 'one' already"),
        (together("one", start("a"), start("b")), "duplicate_run", "id", "has used the id 'one' already"),
        (
            together("g", start("a"), start("b").model_copy(update={"strengths": {"pirat": 1.0}})),
            "unknown_vector", "starts.1.strengths", "No run was started, because of 'b': There is no vector",
        ),
        (
            together("g", start("a").model_copy(update={"adapter": "x"}), start("b")),
            "unknown_adapter", "starts.0.adapter", "No run was started, because of 'a': There is no adapter",
        ),
        (
            together("g", start("a"), start("b"), start("c"), start("d")),
            "invalid", "starts", "4 replies are to begin together, and the engine computes at most 3 at once",
        ),
        (
            together("g", *(start(name).model_copy(update={"sampling": LONG}) for name in "ab")),
            "prompt_too_long", "starts", "come to 200 tokens, and the engine's KV cache holds 150",
        ),
    ],
)  # fmt: skip
async def test_starts_are_admitted_together_or_not_at_all(
    tokenizing: Tokenizing, frame: StartTogether, code: str, field: str, sentence: str
) -> None:
    table = Table(max_runs=3)
    table.engine.capacity_tokens = 150
    async with connected(table) as (socket, _):
        socket.say(start("one").model_copy(update={"sampling": Sampling(max_tokens=1)}), frame)
        await socket.until(lambda: socket.of(Error))
        (error,) = socket.of(Error)
        assert (error.code, error.id, error.field) == (code, frame.id, field)
        assert sentence in error.message
        assert len(socket.of(Started)) == len(table.table.live) == table.table.places.held == 1
        # Their names are free.
        short = [start(name).model_copy(update={"sampling": Sampling(max_tokens=1)}) for name in ("a", "b")]
        socket.say(together("again", *short))
        await socket.until(lambda: len(socket.of(Started)) == 3)
        assert table.table.places.held == 3


async def test_a_frame_counts_as_its_starts(tokenizing: Tokenizing) -> None:
    async with connected(Table()) as (socket, _):
        tokenizing.go_on.clear()
        nine, nine_more = ([start(f"{side}{number}") for number in range(9)] for side in "ab")
        socket.say(together("a", *nine), together("b", *nine_more))
        await socket.until(lambda: socket.of(Error))
        assert (socket.of(Error)[0].id, socket.of(Error)[0].code) == ("b", "busy")
        assert "waits for the answers to 9 starts already, and 16 is all" in socket.of(Error)[0].message
        tokenizing.go_on.set()
        await socket.until(lambda: len(socket.of(Started)) == 9)
        socket.say(together("c", *nine_more[:8]))
        await socket.until(lambda: len(socket.of(Error)) == 2)
        assert "has 9 live runs, and 16 is all it may have" in socket.of(Error)[1].message


async def test_starts_are_refused_as_if_one_came_after_the_other(tokenizing: Tokenizing) -> None:
    async with connected(Table()) as (socket, _):
        tokenizing.go_on.clear()
        names = [f"s{number}" for number in range(MAX_PENDING)]
        names[3] = "s1"
        socket.say(*map(start, [*names, "beyond"]))
        await socket.until(lambda: socket.of(Error))
        (error,) = socket.of(Error)
        assert (error.code, error.id) == ("busy", "beyond")
        tokenizing.go_on.set()
        await socket.until(lambda: len(socket.of(Started)) == MAX_PENDING - 1)
        error = socket.of(Error)[1]
        assert (error.code, error.id) == ("duplicate_run", "s1")
        # One may have as many live runs as that, and there is one left.
        socket.say(start("last"), start("more"))
        await socket.until(lambda: len(socket.of(Error)) == 3)
        assert [frame.id for frame in socket.of(Started)][-1] == "last"
        assert (socket.of(Error)[2].code, socket.of(Error)[2].id) == ("busy", "more")


async def test_a_client_that_leaves_takes_its_pending_starts_along(tokenizing: Tokenizing) -> None:
    table = Table()
    async with connected(table) as (socket, _):
        tokenizing.go_on.clear()
        socket.say(*(start(f"s{number}") for number in range(8)), Ping(t=1.0))
        await socket.until(lambda: socket.of(Pong))
    tokenizing.go_on.set()
    await asyncio.sleep(0.05)
    assert table.table.live == {}
    assert (table.table.places.held, table.table.places.waiting) == (0, 0)
    assert tokenizing.begun == 1, "prompts are made into tokens for nobody"


async def test_a_client_that_takes_nothing_is_closed(
    tokenizing: Tokenizing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    async with connected(Table()) as (socket, _):
        socket.writable.clear()
        socket.say(Ping(t=1.0))
        await socket.until(lambda: socket.closed)
        assert socket.closed == 4508
        socket.writable.set()


@pytest.mark.parametrize("stands_still", [True, False])
async def test_a_loop_that_stands_still_is_not_a_slow_client(
    tokenizing: Tokenizing, monkeypatch: pytest.MonkeyPatch, stands_still: bool
) -> None:
    """The client takes what it is sent within the same time; only whose fault it was differs."""
    monkeypatch.setattr(sender, "STALLED_SECONDS", 0.5 if stands_still else 5)
    monkeypatch.setattr(sender, "SLOW_SECONDS", 0.35)
    loop = asyncio.get_running_loop()
    async with connected(Table()) as (socket, connection):
        socket.writable.clear()
        socket.say(Ping(t=1.0))
        await asyncio.sleep(0.05)
        if stands_still:
            loop.call_soon(time.sleep, 1.0)
        loop.call_later(0.8, socket.writable.set)
        lagged = False
        async with asyncio.timeout(10):
            while not socket.of(Pong) and socket.closed is None:  # noqa: ASYNC110 - of each look, the lag
                await asyncio.sleep(0.01)
            for _ in range(10):
                await asyncio.sleep(0)
                lagged = lagged or connection._sender.lags
        assert socket.closed is None
        assert lagged is not stands_still


async def test_a_busy_server_is_not_a_slow_client(
    tokenizing: Tokenizing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes long to make the frames; the transport was never full."""
    monkeypatch.setattr(sender, "SLOW_SECONDS", 0.05)
    encode = codec.encode

    def slowly(frame: Frame) -> bytes:
        if isinstance(frame, Pong):
            time.sleep(0.2)
        return encode(frame)

    async with connected(Table()) as (socket, connection):
        monkeypatch.setattr(codec, "encode", slowly)
        pings = [encode(Ping(t=1.0))]
        socket._in.put_nowait({"type": "websocket.receive", "bytes": pings[0]})
        await socket.until(lambda: socket.of(Pong))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not connection._sender.lags


async def test_a_hello_that_came_while_the_loop_stood_still_is_in_time(
    tokenizing: Tokenizing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELLO_SECONDS", 0.3)
    asyncio.get_running_loop().call_later(0.05, time.sleep, 0.6)
    async with connected(Table(), hello_after=0.2) as (socket, _):
        assert (socket.closed, len(socket.of(Welcome))) == (None, 1)


async def test_what_is_offered_is_put_together_once_for_all_until_it_changes(tokenizing: Tokenizing) -> None:
    table = Table()
    offering = offering_of(table)
    frames = [offering.welcome(), offering.engine_frame()]
    assert offering.welcome() is frames[0]
    assert offering.engine_frame() is frames[1]
    assert [codec.decode_server(frame).vectors for frame in frames] == [[], []]
    async with connected(table, offering=offering) as (socket, _):
        table.engine.offer.vectors["joy"] = steering_vector("joy", {1: torch.ones(8)})
        table.engine.become(EnginePhase.DRAINING)  # tells whoever listens, as the offer does
        await socket.until(lambda: socket.of(Engine))
        (engine,) = socket.of(Engine)
        assert ([vector.id for vector in engine.vectors], engine.state) == (["joy"], "draining")
    welcome = codec.decode_server(offering.welcome())
    assert ([vector.id for vector in welcome.vectors], welcome.engine.state) == (["joy"], "draining")


async def test_a_connection_that_breaks_takes_nobody_else_along(tokenizing: Tokenizing) -> None:
    """All are sent to in one round."""
    pace = Pace()
    async with connected(Table(), pace=pace) as (broken, _), connected(Table(), pace=pace) as (whole, _):

        def gone(_messages: Sequence[bytes]) -> None:
            raise OSError("gone")

        broken.on_send = gone
        for socket in (broken, whole):
            socket.say(Ping(t=1.0))
        await whole.until(lambda: whole.of(Pong))
        whole.say(Ping(t=2.0))
        await whole.until(lambda: len(whole.of(Pong)) == 2)
        assert broken.of(Pong) == []
