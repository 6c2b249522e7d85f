"""The client against a server that says what it was not made for: newer, damaged, contradictory, or nothing.

The server here is a script over a real socket: what it has to say, a real one of this version never says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from steersight.client import Client, Run, SteersightError, connect
from steersight.protocol import codec
from steersight.protocol import messages as m

Fields = dict[str, Any]
METRIC = m.MetricInfo(
    id="norm", label="Norm", description="", unit="", transform="linear",
    scale=m.ColorScale(kind="sequential", lo=None, hi=None), family="residual", cost="", default=True,
    error=None,
)  # fmt: skip
VECTOR = m.VectorInfo(
    id="joy", label="Joy", description="", layers=[1], range=[-1.0, 1.0], suggested=0.5, kind="direction",
    operator="add", operators=["add"], own=False,
)  # fmt: skip
MODEL = m.ModelInfo(
    id="tiny", layers=2, hidden_size=4, vocab_size=9, dtype="float32", max_model_len=64, special_ids=[]
)
LIMITS = m.Limits(
    max_frame_bytes=1, max_messages=1, max_vectors=1, max_strength=1.0, max_runs_per_connection=1,
    max_reply_tokens=1, grace_seconds=1.0,
)  # fmt: skip


def welcome(**more: Any) -> Fields:
    frame = m.Welcome(
        server="s", name="n", epoch="e", engine=m.EngineStatus(state="ready", stage="Ready", progress=1.0),
        model=MODEL, metrics=[METRIC], vectors=[VECTOR], limits=LIMITS,
    )  # fmt: skip
    return {**frame.model_dump(), **more}


def started(run: str, name: str, metrics: list[str]) -> Fields:
    prompt = m.Prompt(ids=[1, 2], texts=["a", "b"], spans=[])
    return m.Started(run=run, seq=1, id=name, prompt=prompt, metrics=metrics).model_dump()


def tokens(run: str, start: int = 2, **more: Any) -> Fields:
    frame = m.Tokens(run=run, seq=2, start=start, ids=[5], texts=["c"], logprobs=[None], ranks=[None])
    return {**frame.model_dump(), **more}


def rows(run: str, **more: Any) -> Fields:
    frame = m.Rows(
        run=run, seq=3, start=0, count=2, revs=[0, 0], metrics=["norm"], layers=2,
        data=np.arange(4, dtype="<f2").tobytes(), entropy=None,
    )  # fmt: skip
    return {**frame.model_dump(), **more}


def finished(run: str, **more: Any) -> Fields:
    frame = m.Finished(
        run=run, seq=9, reason="stop", stop=None, error=None,
        usage=m.Usage(prompt_tokens=2, reply_tokens=1),
        timing=m.Timing(first_token_ms=1.0, total_ms=2.0, tokens_per_s=None),
    )  # fmt: skip
    return {**frame.model_dump(), **more}


class Script:
    """One connection of the scripted server."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.runs = 0

    async def say(self, *frames: Fields | bytes) -> None:
        for frame in frames:
            await self.socket.send(frame if isinstance(frame, bytes) else msgpack.packb(frame))

    async def hear(self, kind: type[Any]) -> Any:
        """The client's next frame, which must be of this kind."""
        data = await self.socket.recv()
        assert isinstance(data, bytes)
        frame = codec.decode_client(data)
        assert isinstance(frame, kind), frame
        return frame

    async def begin(self, name: str = "r") -> str:
        """Say hello, and admit one run under this name."""
        await self.hear(m.Hello)
        await self.say(welcome())
        return await self.admit(name)

    async def admit(self, name: str, *metrics: str) -> str:
        start = await self.hear(m.Start)
        await self.say(started(name, start.id, list(metrics or ("norm",))))
        return name


Part = Callable[[Script], Awaitable[None]]


@asynccontextmanager
async def server(*parts: Part, patience: float = 0.0) -> AsyncIterator[Client]:
    """A client of a server that plays one part per connection; each stays open until the client leaves."""
    left, faults = list(parts), []

    async def play(socket: ServerConnection) -> None:
        try:
            await left.pop(0)(Script(socket))
        except Exception as fault:
            faults.append(fault)
        await socket.wait_closed()

    async with (
        asyncio.timeout(20),
        serve(play, "127.0.0.1", 0, subprotocols=[Subprotocol(m.SUBPROTOCOL)]) as listening,
    ):
        host, port = next(iter(listening.sockets)).getsockname()[:2]
        async with connect(f"{host}:{port}", patience=patience) as client:
            yield client
    assert faults == []


async def ask(client: Client) -> Run:
    return await client.start([{"role": "user", "content": "hi"}])


async def test_what_only_a_newer_server_knows_is_let_pass() -> None:
    newer = welcome(colour="blue")
    newer["engine"]["since"] = 3
    newer["vectors"][0] |= {"operator": "spin", "operators": ["add", "spin"], "kind": "probe", "maker": "x"}
    newer["metrics"] = [
        METRIC.model_dump() | {"id": "angle", "family": "angles", "transform": "sqrt", "more": 1},
        METRIC.model_dump() | {"scale": {"kind": "cyclic", "lo": None, "hi": None, "mid": None}},
    ]

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say({"type": "sing", "song": 1}, newer)
        run = await script.admit("r", "norm", "angle")
        await script.say(
            {"type": "dance", "run": run}, tokens(run, mood="good"),
            rows(run, metrics=["norm", "angle"], data=np.ones(8, dtype="<f2").tobytes(), at=1.5),
            m.Engine(state="ready", stage="s", progress=1.0, model=None, metrics=[], vectors=[]).model_dump()
            | {"state": "dreaming"},
            {**m.Error(code=m.ErrorCode.BUSY, message="No.").model_dump(), "code": "too_sunny"},
            finished(run, reason="bored"),
        )  # fmt: skip

    async with server(part) as client:
        await client.ready()
        assert client.vectors["joy"].operator == "spin"
        run = await ask(client)
        assert (await run.wait()).reason == "bored"
        assert run.text == "c"
        values = run.rows()
        assert values[:2, 0].tolist() == [[1, 1], [1, 1]]
        assert np.isnan(values[:2, 1]).all(), "a number was made up for a transform that is not known"
        assert client.last_error is not None
        assert client.last_error.code == "too_sunny"
        assert client.engine is not None
        assert client.engine.state == "dreaming"


@pytest.mark.parametrize(
    "first",
    [{"type": "welcome"}, b"\xc1", {**welcome(), "engine": 3}, msgpack.packb([1]), {"no": "type"}],
    ids=["fields are missing", "no msgpack", "a field of another kind", "no map", "no type"],
)
async def test_a_welcome_that_cannot_be_read_ends_the_waiting(first: Fields | bytes) -> None:
    async def part(script: Script) -> None:
        await script.say(first)

    async with server(part, patience=30) as client:
        for call in (client.ready(), ask(client), client.watch("r"), client.until(lambda: False)):
            with pytest.raises(SteersightError, match="what this client cannot read") as raised:
                await call
            assert raised.value.code == "unreadable"
            assert str(raised.value).endswith(".")


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "tokens", "run": "bad", "seq": 2},
        tokens("bad", texts=[]),
        tokens("bad", start=7),
        rows("bad", data=b"\0\0"),
        rows("bad", revs=[0]),
        rows("bad", dtype="f4"),
        rows("bad", metrics=["other"]),
        {
            "type": "lens", "run": "bad", "seq": 2, "start": 0, "count": 1, "layers": [0], "top": 1,
            "ids": b"\1\0\0\0", "probabilities": b"\0\0", "new_ids": [], "new_texts": [],
        },
    ],
    ids=["no fields", "no texts", "a hole", "too few bytes", "too few revisions", "other bytes",
         "other metrics", "no names"],
)  # fmt: skip
async def test_a_run_that_cannot_be_read_ends_alone(bad: Fields) -> None:
    async def part(script: Script) -> None:
        await script.begin("bad")
        good = await script.admit("good")
        await script.say(bad, tokens(good), finished(good))

    async with server(part) as client:
        lost, other = await ask(client), await ask(client)
        waiting = asyncio.create_task(lost.applied(1))
        with pytest.raises(SteersightError, match="what this client cannot read"):
            await lost.wait()
        with pytest.raises(SteersightError, match="what this client cannot read"):
            await waiting
        await other.wait()
        assert other.text == "c"


async def test_a_refused_start_that_cannot_be_read_is_not_waited_for() -> None:
    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        start = await script.hear(m.Start)
        await script.say({"type": "started", "id": start.id, "run": "r"})

    async with server(part) as client:
        with pytest.raises(SteersightError, match="what this client cannot read"):
            await ask(client)


async def test_rows_of_a_metric_that_is_gone_are_kept() -> None:
    async def part(script: Script) -> None:
        run = await script.begin()
        gone = m.Engine(state="ready", stage="s", progress=1.0, model=None, metrics=[], vectors=[])
        await script.say(gone.model_dump(), rows(run), tokens(run), finished(run))

    async with server(part) as client:
        run = await ask(client)
        await run.wait()
        assert run.rows()[:2, 0].tolist() == [[0, 1], [2, 3]]


async def test_a_refused_revision_raises_where_it_is_waited_for() -> None:
    async def part(script: Script) -> None:
        run = await script.begin()
        steer = await script.hear(m.Steer)
        no = m.Error(code=m.ErrorCode.UNKNOWN_VECTOR, message="There is no vector x.", run=run, rev=steer.rev)
        await script.say(no.model_dump())
        steer = await script.hear(m.Steer)
        await script.say(m.Applied(run=run, seq=4, rev=steer.rev, position=7).model_dump())
        steer = await script.hear(m.Steer)
        stale = m.Error(code=m.ErrorCode.STALE_REVISION, message="Not newer than 9.", run=run, rev=steer.rev)
        await script.say(stale.model_dump())
        assert (await script.hear(m.Resume)).after == 4
        await script.say(
            m.Resumed(run=run, seq=4, newest=4, rev=9, strengths={}, settings={}).model_dump(),
            m.Queued(run=run, seq=5, position=0).model_dump(),
        )
        steer = await script.hear(m.Steer)
        assert steer.rev == 10
        await script.say(finished(run))

    async with server(part) as client:
        run = await ask(client)
        first = await run.steer({"x": 1.0})
        with pytest.raises(SteersightError, match="There is no vector x") as refused:
            await run.applied(first)
        assert refused.value.code == "unknown_vector"
        assert await run.applied(await run.steer({"joy": 0.1})) == 7
        with pytest.raises(SteersightError, match="Not newer than 9"):
            await run.applied(await run.steer({"joy": 0.2}))
        await run._until(lambda: run.seq == 5)
        with pytest.raises(SteersightError, match="ended before"):
            await run.applied(await run.steer({"joy": 0.3}))


async def test_rows_are_asked_for_again_after_a_line_that_broke_meanwhile() -> None:
    """The reader asks for them itself, and must not wait for a line that only it can find."""
    gap = m.Gap(run="r", seq=2, start=0, count=2, kept=True)

    async def breaks(script: Script) -> None:
        await script.begin()
        await script.say(gap.model_dump())
        script.socket.transport.abort()

    async def goes_on(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        assert (await script.hear(m.Resume)).after == 2
        await script.say(m.Resumed(run="r", seq=2, newest=2, rev=0, strengths={}, settings={}).model_dump())
        asked = await script.hear(m.AskRows)
        assert (asked.start, asked.count) == (0, 2)
        await script.say(rows("r"), tokens("r"), finished("r"))

    async with server(breaks, goes_on, patience=10) as client:
        run = await ask(client)
        await run.wait()
        assert client.reconnects == 1
        assert run.rows()[:2, 0].tolist() == [[0, 1], [2, 3]]


async def test_a_fault_of_the_client_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def part(script: Script) -> None:
        run = await script.begin()
        await script.say(tokens(run))

    async def fail(*_: object) -> list[m.AskRows]:
        raise TypeError("planted")

    monkeypatch.setattr(Run, "take", fail)
    async with server(part) as client:
        run = await ask(client)
        with pytest.raises(SteersightError, match=r"client itself failed .*planted") as raised:
            await run.wait()
        assert raised.value.code == "failed"


async def test_whoever_still_waits_is_told_when_the_client_closes() -> None:
    async def part(script: Script) -> None:
        await script.begin()

    async with server(part) as client:
        run = await ask(client)
        waiting = [asyncio.create_task(call) for call in (run.wait(), run.applied(1), ask(client))]
        await asyncio.sleep(0)
    for told in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(told, SteersightError)
        assert str(told) == "The client was closed."
