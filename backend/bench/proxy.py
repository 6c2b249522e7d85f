"""A bad line: a TCP proxy that delays, throttles, stalls and cuts, by dice with a seed.

Bytes are never changed and never change places; what a cut takes away is the end. Each connection draws its
own `Fate`, so a run of the proxy can be described by its seed, though not repeated to the millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Literal

CHUNK = 4096
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, no time: closing sends RST and drops what was not sent."""

Ending = Literal["reset", "close", "half", "silence", "none"]


@dataclass(frozen=True)
class Fate:
    """What happens to one connection."""

    ending: Ending
    """`reset` cuts with RST, `close` with FIN both ways, `half` closes one direction with FIN and the other a
    moment later, `silence` takes and delivers nothing for a while before a reset, `none` leaves it alone."""
    lasts: float
    """Seconds until the ending."""
    delay: float
    """Seconds that every piece takes longer."""
    rate: float
    """Bytes a second in each direction; infinity is as fast as it goes."""
    stall_every: float
    """Seconds between stalls; infinity is none."""
    stall: float
    """Seconds of a stall."""

    @classmethod
    def drawn(cls, dice: random.Random) -> Fate:
        """A fate by dice: three of four connections are cut within seconds."""
        return cls(
            ending=dice.choices(("reset", "close", "half", "silence", "none"), (40, 20, 8, 7, 25))[0],
            lasts=0.05 + dice.expovariate(1 / 1.5),
            delay=dice.choice((0.0, 0.0, 0.005, 0.05, 0.2)),
            rate=dice.choice((float("inf"), float("inf"), 200_000.0, 50_000.0, 15_000.0)),
            stall_every=dice.choice((float("inf"), float("inf"), 1.0, 4.0)),
            stall=dice.uniform(0.1, 2.0),
        )


QUIET = Fate("none", 0.0, 0.0, float("inf"), float("inf"), 0.0)
SILENCE_SECONDS = 6.0
HALF_SECONDS = 0.5


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    wire = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class BadLine:
    """The proxy. Use it as an async context manager; `address` is where clients connect."""

    def __init__(self, upstream: str, seed: int, fates: list[Fate] | None = None) -> None:
        """`fates` are given to the first connections in turn; later ones, or all, are drawn."""
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self._dice = random.Random(seed)  # noqa: S311
        self._fates = list(fates or [])
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.address = ""
        self.endings: Counter[str] = Counter()
        """How many connections ended how; `none` are those whose client or server ended them."""
        self.calm = False
        """When set, new connections are left alone."""

    async def __aenter__(self) -> BadLine:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None  # noqa: S101
        self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def _fate(self) -> Fate:
        if self._fates:
            return self._fates.pop(0)
        return QUIET if self.calm else Fate.drawn(self._dice)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._links.add(task)
        try:
            await self._link(reader, writer, self._fate())
        except (OSError, asyncio.CancelledError):
            reset(writer)
        finally:
            self._links.discard(task)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fate: Fate) -> None:
        # Small buffers, so that a throttled line is felt by who writes and not swallowed on the way.
        wire = socket.socket()
        wire.setblocking(False)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        await asyncio.get_running_loop().sock_connect(wire, (self._host, self._port))
        up_reader, up_writer = await asyncio.open_connection(sock=wire, limit=CHUNK)
        pumps = [
            asyncio.create_task(self._pump(reader, up_writer, fate)),
            asyncio.create_task(self._pump(up_reader, writer, fate)),
        ]
        try:
            lasts = None if fate.ending == "none" else fate.lasts
            over, _ = await asyncio.wait(pumps, timeout=lasts, return_when=asyncio.FIRST_COMPLETED)
            ending: Ending = "none" if over else fate.ending
            self.endings[ending] += 1
            if ending == "half":
                pumps[0].cancel()
                with contextlib.suppress(OSError):
                    up_writer.write_eof()
                await asyncio.wait([pumps[1]], timeout=HALF_SECONDS)
            elif ending == "silence":
                for pump in pumps:
                    pump.cancel()
                await asyncio.sleep(SILENCE_SECONDS)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            gentle = fate.ending in ("close", "half", "none")
            for end in (writer, up_writer):
                if gentle:
                    end.close()
                else:
                    reset(end)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fate: Fate) -> None:
        loop = asyncio.get_running_loop()
        stall_at = loop.time() + fate.stall_every
        while data := await reader.read(CHUNK):
            wait = fate.delay + len(data) / fate.rate
            if loop.time() >= stall_at:
                wait += fate.stall
                stall_at = loop.time() + wait + fate.stall_every
            if wait:
                await asyncio.sleep(wait)
            writer.write(data)
            await writer.drain()
