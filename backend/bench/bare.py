"""A bare client for the proofs: frames out, frames in, and no opinion of its own.

Not `steersight.client`, which is part of what is proved: it would hide a frame that comes twice.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from steersight.protocol import codec
from steersight.protocol import messages as m

from .proving import promise


class Line:
    """One connection after `hello`."""

    def __init__(self, wire: ClientConnection, welcome: m.Welcome) -> None:
        self.wire = wire
        self.welcome = welcome
        self.received = 0
        """Bytes of frames."""

    async def send(self, frame: m.Frame) -> None:
        """One frame out."""
        await self.wire.send(codec.encode(frame))

    async def receive(self) -> Any:
        """The next frame. Raises ConnectionClosed."""
        data = await self.wire.recv()
        promise(isinstance(data, bytes), "The server sent a text frame.")
        self.received += len(data)
        return codec.decode_server(data)  # type: ignore[arg-type]

    def vanish(self) -> None:
        """Be gone without a word: RST, no close frame."""
        wire = self.wire.transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wire.transport.abort()


@asynccontextmanager
async def dial(address: str, source: str | None = None) -> AsyncIterator[Line]:
    """Connect and say hello."""
    more: dict[str, Any] = {} if source is None else {"local_addr": (source, 0)}
    async with connect(
        f"ws://{address}/ws", subprotocols=[Subprotocol(m.SUBPROTOCOL)], max_size=None, compression=None,
        open_timeout=30, close_timeout=3, ping_interval=None, **more,
    ) as wire:  # fmt: skip
        await wire.send(codec.encode(m.Hello()))
        while True:
            data = await wire.recv()
            frame = codec.decode_server(data)  # type: ignore[arg-type]
            if isinstance(frame, m.Welcome):
                break
        yield Line(wire, frame)


def question(name: str, text: str, tokens: int, **more: Any) -> m.Start:
    """A greedy run of one question."""
    sampling = m.Sampling(max_tokens=tokens, temperature=0.0, top_p=1.0)
    return m.Start(id=name, messages=[m.ChatMessage(role="user", content=text)], sampling=sampling, **more)


def all_metrics(welcome: m.Welcome) -> list[str]:
    """Ids of all metrics that need no logit lens."""
    return [x.id for x in welcome.metrics if x.family != "logit_lens" and x.error is None][:64]
