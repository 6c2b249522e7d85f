"""A server that plays a script over a real socket: for what a real one of this version never says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from steersight.client import Client, connect
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
async def playing(*parts: Part) -> AsyncIterator[str]:
    """Address of a server that plays one part per connection; each stays open until the client leaves."""
    left, faults = list(parts), []

    async def play(socket: ServerConnection) -> None:
        try:
            await left.pop(0)(Script(socket))
        except Exception as fault:
            faults.append(fault)
        await socket.wait_closed()

    async with serve(play, "127.0.0.1", 0, subprotocols=[Subprotocol(m.SUBPROTOCOL)]) as listening:
        host, port = next(iter(listening.sockets)).getsockname()[:2]
        yield f"{host}:{port}"
    assert faults == []


@asynccontextmanager
async def server(*parts: Part, patience: float = 0.0) -> AsyncIterator[Client]:
    """A client of such a server."""
    async with asyncio.timeout(20), playing(*parts) as address, connect(address, patience=patience) as client:
        yield client
