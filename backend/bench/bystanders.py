"""Everybody but the ten healthy clients of `bench.crowd`, in a process of their own.

    python -m bench.bystanders crowd|company HOST:PORT

Lines of JSON come in on its standard input, `[client, run]` whenever a healthy client has a new run, and what
was seen goes out as one line when the input ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from steersight.protocol import codec
from steersight.protocol import messages as m

from .bare import Line, all_metrics, dial, question
from .proving import promise

HEALTHY, WATCHING, IDLE, DEAF, VANISHING = 10, 100, 50, 20, 20
LONG_TOKENS = 300
"""Of the runs of those who do not read: long enough for a part, short enough for a KV cache of 1 GiB."""
VANISH_AFTER = 8.0
TEXT = "Write a long letter about the history of Paris."


class Deaf:
    """A raw socket that starts a run and never reads again once it has begun."""

    def __init__(self, address: str, number: int, metrics: list[str], asks: bool) -> None:
        host, _, port = address.rpartition(":")
        self.asks = asks
        """Whether it goes on asking for rows."""
        self.closed_after: float | None = None
        self._wire = socket.socket()
        self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._wire.settimeout(60)
        self._wire.connect((host, int(port)))
        key = base64.b64encode(os.urandom(16)).decode()
        self._wire.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {m.SUBPROTOCOL}\r\n\r\n".encode()
        )
        self._read = bytearray()
        while b"\r\n\r\n" not in self._read:
            self._more()
        del self._read[: self._read.index(b"\r\n\r\n") + 4]
        self.send(m.Hello())
        self.send(question(f"deaf{number}", TEXT, LONG_TOKENS, metrics=metrics, entropy=True))
        self.run = ""
        while not self.run:
            for _, payload in self._frames():
                frame = codec.decode_server(payload)
                promise(not isinstance(frame, m.Error), f"A deaf client was refused: {frame}")
                if isinstance(frame, m.Started):
                    self.run = frame.run
            if not self.run:
                self._more()
        self._deaf_since = time.monotonic()
        self._wire.setblocking(False)

    def send(self, frame: m.Frame) -> None:
        """One masked frame; the last one where the server does not read either."""
        data = Frame(Opcode.BINARY, codec.encode(frame)).serialize(mask=True)
        try:
            self._wire.sendall(data)
        except BlockingIOError:
            self.asks = False

    def look(self) -> None:
        """Whether the server has cut the line, which can be seen without reading; and ask for more."""
        if self.closed_after is not None:
            return
        poll = select.poll()
        poll.register(self._wire, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
        try:
            if self.asks:
                self.send(m.AskRows(run=self.run, start=0, count=4096))
            gone = bool(poll.poll(0))
        except OSError:
            gone = True
        if gone:
            self.closed_after = time.monotonic() - self._deaf_since

    def end(self) -> int | None:
        """Read what is left; the code of the close frame, None where there was none."""
        self._wire.settimeout(5)
        code = None
        with contextlib.suppress(OSError):
            while True:
                for opcode, payload in self._frames():
                    if opcode == Opcode.CLOSE:
                        code = int.from_bytes(payload[:2], "big")
                if not self._more():
                    break
        self._wire.close()
        return code

    def _more(self) -> bool:
        data = self._wire.recv(65536)
        self._read += data
        return bool(data)

    def _frames(self) -> list[tuple[int, bytes]]:
        """Whole messages that have come; the server does not fragment."""
        out = []
        while len(self._read) >= 2:
            length, head = self._read[1] & 0x7F, 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                head += wide
                if len(self._read) < head:
                    break
                length = int.from_bytes(self._read[2:head], "big")
            if len(self._read) < head + length:
                break
            out.append((self._read[0] & 0x0F, bytes(self._read[head : head + length])))
            del self._read[: head + length]
        return out


async def read_on(line: Line) -> None:
    """Read whatever comes, until it ends."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await line.wire.recv()


async def company(address: str, over: asyncio.Event) -> None:
    """Forty clients that read their runs."""

    async def one(number: int) -> None:
        async with dial(address) as line:
            start = question(f"g{number}", TEXT, LONG_TOKENS, metrics=all_metrics(line.welcome), entropy=True)
            await line.send(start)
            reading = asyncio.create_task(read_on(line))
            await over.wait()
            reading.cancel()

    await asyncio.gather(*(one(number) for number in range(DEAF + VANISHING)))


async def crowd(address: str, over: asyncio.Event, runs: asyncio.Queue[tuple[int, str]]) -> dict[str, Any]:
    """Everybody but the ten; what became of them."""
    watchers: list[Line] = []
    seen: Counter[str] = Counter()
    vanished = asyncio.Event()

    async def watch() -> None:
        async with dial(address) as line:
            watchers.append(line)
            reading = asyncio.create_task(read_on(line))
            await asyncio.wait([reading, waiting], return_when=asyncio.FIRST_COMPLETED)
            seen["watchers cut"] += reading.done()
            reading.cancel()

    async def idle() -> None:
        async with dial(address) as line:
            reading = asyncio.create_task(read_on(line))
            await asyncio.wait([reading, waiting], return_when=asyncio.FIRST_COMPLETED)
            seen["idle ones cut"] += reading.done()
            reading.cancel()

    async def vanish(number: int) -> None:
        async with dial(address) as line:
            start = question(f"v{number}", TEXT, LONG_TOKENS, metrics=all_metrics(line.welcome), entropy=True)
            await line.send(start)
            reading = asyncio.create_task(read_on(line))
            await vanished.wait()
            line.vanish()
            seen["vanished"] += 1
            reading.cancel()

    async def follow() -> None:
        async with dial(address) as line:
            epoch = line.welcome.epoch
        while True:
            client, run = await runs.get()
            mine = [line for at, line in enumerate(list(watchers)) if at % HEALTHY == client]
            for line in mine:
                with contextlib.suppress(ConnectionClosed):
                    await line.send(m.Resume(run=run, epoch=epoch, after=0))
                    seen["runs watched"] += 1

    async def deafness() -> None:
        async with dial(address) as line:
            metrics = all_metrics(line.welcome)
        for number in range(DEAF):
            asks = number % 2 == 0
            deaf.append(await asyncio.to_thread(Deaf, address, number, metrics, asks))
        while True:
            for one in deaf:
                one.look()
            await asyncio.sleep(0.25)

    deaf: list[Deaf] = []
    waiting = asyncio.create_task(over.wait())
    tasks = [asyncio.create_task(work) for work in (follow(), deafness())]
    tasks += [asyncio.create_task(watch()) for _ in range(WATCHING)]
    tasks += [asyncio.create_task(idle()) for _ in range(IDLE)]
    tasks += [asyncio.create_task(vanish(number)) for number in range(VANISHING)]
    await asyncio.sleep(VANISH_AFTER)
    vanished.set()
    await waiting
    for task in tasks[:2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [repr(error) for error in outcomes if isinstance(error, Exception)]
    codes = [await asyncio.to_thread(one.end) for one in deaf]
    return {
        "deaf": [
            {"asks": one.asks, "after": one.closed_after, "code": code}
            for one, code in zip(deaf, codes, strict=True)
        ],
        "seen": seen,
        "errors": errors,
    }


async def others(address: str, kind: str) -> None:
    """The other process: reads [client, run] lines until its input ends, then says what was seen."""
    over = asyncio.Event()
    runs: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    work = asyncio.create_task(company(address, over) if kind == "company" else crowd(address, over, runs))
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while text := await lines.readline():
        client, run = json.loads(text)
        runs.put_nowait((client, run))
    over.set()
    print(json.dumps(await work), flush=True)


if __name__ == "__main__":
    asyncio.run(others(sys.argv[2], sys.argv[1]))
