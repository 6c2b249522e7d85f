"""One connection's way out: the only place that writes to it.

It takes control frames from a short outbox and run events from the runs' logs, from where this client has got
to, whenever it is called in a round of all connections (`pace.py`). A round is a plain call: to wake a task
for each connection and step costs more than the frames. Somebody has to wait only where the transport is
full; that is `run`, and it goes on where the round had to leave off.

A slow client makes its own frames fewer, larger and later; when it lags, rows are left out with a `gap`,
tokens and control never; when it takes nothing for too long, or asks for more than it reads, the connection
is closed with a code of its own. The transport says how slow a client is: what counts is the time in which it
was full and this server awake (`patience.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..patience import Patience
from ..protocol import codec
from ..protocol.close import CloseCode
from ..protocol.codec import WireMap
from ..protocol.messages import Frame
from ..telemetry import Telemetry
from .feed import Feed
from .pace import Pace
from .transport import SEND_ALL, WRITABLE

MAX_OUTBOX = 1000
"""Control frames that may wait for a client: answers to what it asked, and it does not read them."""
SLOW_SECONDS = 0.5
"""A client whose transport is full for longer than this while it is sent what is new lags."""
MOST_LAGGING_BYTES = 256 << 10
"""Rows that a lagging client is sent at once; what is older is left out."""
BYTES_AT_ONCE = 64 << 10
"""So much is handed to the transport before it is asked again whether it takes more."""
STALLED_SECONDS = 20.0
"""A client that takes nothing for so long is given up."""
GONE = 1006
"""The close code of a connection that ended without one."""


class Close(Exception):  # noqa: N818 - not an error: the way out of all loops
    """The connection is to be closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code


class Sender:
    """What one client is sent, and when."""

    def __init__(
        self,
        socket: WebSocket,
        pace: Pace,
        telemetry: Telemetry,
        *,
        more_to_come: Callable[[], bool],
    ) -> None:
        """
        Args:
            socket: an accepted one.
            pace: says when to send.
            telemetry: told what has been sent.
            more_to_come: whether somebody is at something that the client will be told of.
        """
        extensions = socket.scope["extensions"]
        self._writable: asyncio.Event = extensions[WRITABLE]
        self._send_messages: Callable[[Sequence[bytes]], None] = extensions[SEND_ALL]
        self._telemetry = telemetry
        self._more_to_come = more_to_come
        self.feeds: dict[str, Feed] = {}
        """What the client watches, by the names of runs."""
        self.lags = False
        """Whether the client has been too slow for what it was sent last."""
        self._outbox: deque[Frame | bytes] = deque()
        self._states: dict[Callable[[], bytes], None] = {}
        """What makes frames of states that have changed."""
        self._left_off: Iterator[list[bytes]] | None = None
        """What a round has begun to send, and the transport would not take."""
        self._failed: Exception | None = None
        self._closed = False
        self._wait = asyncio.Event()
        self._overrun = asyncio.Event()
        self._nothing_left = asyncio.Event()
        self.look = partial(pace.soon, self._round)
        """To be called when there may be something new to send."""

    def post(self, frame: Frame | bytes) -> None:
        """Send a control frame soon."""
        self._outbox.append(frame)
        if len(self._outbox) > MAX_OUTBOX:
            self._overrun.set()
        self.look()

    def state_changed(self, frame: Callable[[], bytes]) -> None:
        """Send a state, as the frame that this makes, soon: once, however often it changes until then."""
        self._states[frame] = None
        self.look()

    async def told(self) -> None:
        """Wait until the client has been sent everything there is."""
        self._nothing_left.clear()
        self.look()
        await self._nothing_left.wait()

    # ------------------------------------------------------------ one round

    def _round(self) -> None:
        """Send all that is new, as far as the transport takes it. Never raises: others are in the round."""
        if self._closed or self._left_off is not None:
            return
        batches = self._batches(self._news())
        try:
            if self._sent(batches):
                self._done(0.0)
                return
        except Exception as error:
            self._failed = error
        self._left_off = batches
        self._wait.set()

    def _sent(self, batches: Iterator[list[bytes]]) -> bool:
        """Send as long as there is room; whether that was all."""
        while self._writable.is_set():
            messages = next(batches, None)
            if messages is None:
                return True
            self._write(messages)
        return False

    def _done(self, waited: float) -> None:
        """All has been sent, and the client has let this server wait so many seconds for it."""
        self.lags = waited > SLOW_SECONDS
        if self._outbox or self._states or not all(feed.idle for feed in self.feeds.values()):
            self.look()
        elif not self._more_to_come():
            self._nothing_left.set()

    def _news(self) -> Iterator[Frame | WireMap | bytes]:
        while self._outbox:
            yield self._outbox.popleft()
        states, self._states = self._states, {}
        for frame in states:
            yield frame()
        for feed in list(self.feeds.values()):
            yield from feed.take(MOST_LAGGING_BYTES if self.lags else None)

    def _batches(self, frames: Iterator[Frame | WireMap | bytes]) -> Iterator[list[bytes]]:
        """Frames packed, in batches that the transport is handed as one."""
        messages: list[bytes] = []
        size = 0
        for frame in frames:
            data = frame if isinstance(frame, bytes) else codec.encode(frame)
            messages.append(data)
            size += len(data)
            if isinstance(frame, dict):
                self._count(frame)
            if size >= BYTES_AT_ONCE:
                yield messages
                messages, size = [], 0
        if messages:
            yield messages

    def _count(self, frame: WireMap) -> None:
        if frame["type"] == "rows":
            self._telemetry.rows_sent(frame["count"])
        elif frame["type"] == "gap" and frame["kept"]:
            self._telemetry.rows_skipped(frame["count"])

    def _write(self, messages: list[bytes]) -> None:
        try:
            self._send_messages(messages)
        except OSError:
            raise WebSocketDisconnect(GONE) from None
        self._telemetry.frames_sent(sum(map(len, messages)))

    # ------------------------------------------------------------ when the transport is full

    async def run(self) -> None:
        """Wait for room where a round found none, and send the rest. Raises what ends the connection."""
        while True:
            await self._wait.wait()
            self._wait.clear()
            if self._failed is not None:
                raise self._failed
            waited = 0.0
            while self._left_off is not None:
                waited += await self._room()
                if self._sent(self._left_off):
                    self._left_off = None
            self._done(waited)

    async def watch_outbox(self) -> None:
        """Ends the connection when too many answers wait for its client."""
        await self._overrun.wait()
        self._outbox.clear()
        raise Close(CloseCode.TOO_SLOW)

    async def flush(self) -> None:
        """Send the outbox, and nothing from now on."""
        self._closed = True
        for messages in self._batches(self._outbox.popleft() for _ in range(len(self._outbox))):
            await self._room()
            self._write(messages)

    def close(self) -> None:
        """Send nothing any more."""
        self._closed = True

    async def _room(self) -> float:
        """Wait until the transport has given the client enough of what it holds; returns the seconds."""
        if self._writable.is_set():
            return 0.0
        patience = Patience(STALLED_SECONDS)
        try:
            async with patience:
                await self._writable.wait()
        except TimeoutError:
            self._outbox.clear()
            raise Close(CloseCode.TOO_SLOW) from None
        return patience.waited
