"""A bare client for tests: frames in, frames out, nothing remembered but what came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from steersight.protocol import codec, messages

Taken = list[Any]


class Wire:
    """One connection; `frames` holds everything that has come."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: Taken = []

    async def send(self, frame: messages.Frame) -> None:
        await self.socket.send(codec.encode(frame))

    async def until(self, wanted: Callable[[Any], bool], seconds: float = 60) -> Any:
        """Receive until a frame satisfies `wanted`; return it."""
        async with asyncio.timeout(seconds):
            while True:
                data = await self.socket.recv()
                assert isinstance(data, bytes)
                frame = codec.decode_server(data)
                self.frames.append(frame)
                if wanted(frame):
                    return frame

    async def start(self, name: str, text: str, **more: Any) -> str:
        """Start a run with one user message; returns the server's id of it. All of it is computed, whatever
        other tests have asked before, so that all its rows come."""
        said = [messages.ChatMessage(role="user", content=text)]
        await self.send(messages.Start(id=name, messages=said, **{"read_cache": False, **more}))
        started = await self.until(lambda f: getattr(f, "id", None) == name)
        assert isinstance(started, messages.Started), started
        return started.run

    def of(self, run: str, kind: type[Any]) -> list[Any]:
        """All frames of a kind that belong to a run."""
        return [frame for frame in self.frames if isinstance(frame, kind) and frame.run == run]

    def ids(self, run: str) -> tuple[list[int], list[int]]:
        """Prompt and reply token ids, checked for order."""
        prompt = self.of(run, messages.Started)[0].prompt.ids
        reply: list[int] = []
        for frame in self.of(run, messages.Tokens):
            assert frame.start == len(prompt) + len(reply), "a token was lost, doubled or reordered"
            reply += frame.ids
        return prompt, reply

    def revs(self, run: str) -> list[int]:
        """Revision of each row from position 0, checked for order."""
        revs: list[int] = []
        for frame in self.of(run, messages.Rows):
            assert frame.start == len(revs), "a row was lost, doubled or reordered"
            revs += frame.revs
        return revs


def greedy(tokens: int) -> messages.Sampling:
    return messages.Sampling(max_tokens=tokens, temperature=0.0, top_p=1.0)


@asynccontextmanager
async def dial(address: str, hello: bool = True) -> AsyncIterator[Wire]:
    """Connect as a client does."""
    async with connect(
        f"ws://{address}/ws", subprotocols=[Subprotocol(messages.SUBPROTOCOL)], max_size=None
    ) as socket:
        wire = Wire(socket)
        if hello:
            await wire.send(messages.Hello())
            await wire.until(lambda frame: isinstance(frame, messages.Welcome))
        yield wire
