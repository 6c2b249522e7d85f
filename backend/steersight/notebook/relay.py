"""Lines between widgets in a browser and the server, held by the kernel that the notebook runs in.

A widget has the page's own session, which speaks to a server in frames. Here they come as buffers of the
widget's messages and go on over a socket of the widget's own, byte for byte. The token is said here and comes
into no browser, and nothing goes through but what concerns the run that is shown: it can be watched, steered
and stopped, and nothing can be asked for. `frontend/src/notebook/comm.ts` is the other end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ..client import SteersightError
from ..client.connection import Dial
from ..protocol import codec
from ..protocol.messages import AskRows, Resume, Steer, Stop, Watch

logger = logging.getLogger(__name__)

ALLOWED = (AskRows, Resume, Steer, Stop, Watch)
"""What a widget may say, of its own run."""
MOST_LINES = 8
"""One for each page that shows the widget; a page that has gone without a word leaves its line behind."""
WAITING = 64
"""Frames that may wait for their turn; more wait with the server, which joins what belongs together."""
PAUSE_SECONDS = 0.03
BYTES_A_SECOND = 600_000
"""Jupyter's server throws away what a kernel says beyond a million bytes or a thousand messages a second."""
ABNORMAL = 1006
"""As a browser's socket says that its line was lost."""

Say = Callable[[Mapping[str, Any], Sequence[bytes]], None]
"""Takes a message for the browser, and its buffers."""


class Relay:
    """The lines of one widget, in one event loop."""

    def __init__(self, run: str, dial: Dial, say: Say) -> None:
        """
        Args:
            run: name of the run that is shown.
            dial: opens a socket to the server and says hello.
            say: called in this loop.
        """
        self._run = run
        self._dial = dial
        self._say = say
        self._lines: dict[str, asyncio.Task[None]] = {}
        self._sockets: dict[str, ClientConnection] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._known: set[str] = set()
        """Lines that were asked for at some time: a browser asks again until it is answered."""

    def take(self, said: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """A message from a browser. What is none of ours is left alone."""
        line, kind = said.get("line"), said.get("kind")
        if not isinstance(line, str):
            return
        if kind == "open" and line not in self._known:
            self._known.add(line)
            while len(self._lines) >= MOST_LINES:
                self._end(next(iter(self._lines)))
            self._lines[line] = asyncio.get_running_loop().create_task(self._carry(line))
        elif kind == "close":
            self._known.add(line)
            self._end(line)
        elif kind == "frame" and (socket := self._sockets.get(line)) is not None:
            for buffer in buffers:
                if (data := self._allowed(bytes(buffer))) is not None:
                    sending = asyncio.get_running_loop().create_task(_send(socket, data))
                    self._sending.add(sending)
                    sending.add_done_callback(self._sending.discard)

    def close(self) -> None:
        """End all lines."""
        for line in list(self._lines):
            self._end(line)

    def _end(self, line: str) -> None:
        if (task := self._lines.pop(line, None)) is not None:
            task.cancel()

    def _allowed(self, data: bytes) -> bytes | None:
        try:
            frame = codec.decode_client(data)
        except codec.FrameError as error:
            logger.warning("A widget said what is no frame: %s", error)
            return None
        return data if isinstance(frame, ALLOWED) and frame.run == self._run else None

    async def _carry(self, line: str) -> None:
        """One line, from its beginning to its end."""
        code, reason = ABNORMAL, "The connection to the server is gone. It may have stopped."
        socket = None
        try:
            socket = self._sockets[line] = await self._dial()
            self._say({"kind": "opened", "line": line}, [])
            await self._tell(line, socket)
        except SteersightError as error:
            reason = str(error)
        except ConnectionClosed as error:
            if error.rcvd is not None:
                code, reason = error.rcvd.code, error.rcvd.reason or reason
        finally:
            self._sockets.pop(line, None)
            if socket is not None:
                await socket.close()
        self._lines.pop(line, None)
        self._say({"kind": "closed", "line": line, "code": code, "reason": reason}, [])

    async def _tell(self, line: str, socket: ClientConnection) -> None:
        """Hand on what the server says, several frames in one message. Raises ConnectionClosed."""
        waiting: asyncio.Queue[bytes | ConnectionClosed] = asyncio.Queue(WAITING)
        reader = asyncio.create_task(_read(socket, waiting))
        try:
            while True:
                frames = [await waiting.get()]
                while not waiting.empty():
                    frames.append(waiting.get_nowait())
                found = [frame for frame in frames if isinstance(frame, bytes)]
                if found:
                    self._say({"kind": "frames", "line": line}, found)
                if isinstance(ended := frames[-1], ConnectionClosed):
                    raise ended
                await asyncio.sleep(max(PAUSE_SECONDS, sum(map(len, found)) / BYTES_A_SECOND))
        finally:
            reader.cancel()


async def _read(socket: ClientConnection, waiting: asyncio.Queue[bytes | ConnectionClosed]) -> None:
    try:
        while True:
            data = await socket.recv()
            if isinstance(data, bytes):
                await waiting.put(data)
    except ConnectionClosed as error:
        await waiting.put(error)


async def _send(socket: ClientConnection, data: bytes) -> None:
    try:
        await socket.send(data)
    except ConnectionClosed:
        return  # whoever reads from it tells the browser
