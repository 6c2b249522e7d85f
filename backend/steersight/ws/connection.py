"""One connection's conversation: a receive loop, a send loop, and the runs it watches.

The send loop is the only place that writes. It takes control frames from a short outbox and run events from
the runs' logs, from where this client has got to. A slow client makes its own frames fewer, larger and later;
when it lags, rows are left out with a `gap`, tokens and control never; when it takes nothing for too long, or
asks for more than it reads, it is closed with its own code. Nothing else waits for it: not the engine, not
another connection, not even its own receive loop. Its transport says how slow a client is: what counts is the
time in which the transport was full and this server awake (`patience.py`).

The receive loop waits for nothing but the next frame: starts, whose prompts take a while, are admitted beside
it (`admissions.py`).

When the connection ends, its runs go on for the grace time, and whoever resumes them goes on watching.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..engine.service import EngineService
from ..patience import Patience
from ..protocol import codec
from ..protocol.close import REASONS, CloseCode
from ..protocol.codec import FrameError, WireMap
from ..protocol.messages import (
    SUBPROTOCOL,
    AskRows,
    Error,
    ErrorCode,
    Frame,
    Hello,
    Ping,
    Pong,
    Resume,
    Resumed,
    Start,
    Steer,
    Stop,
)
from ..runs.run import Run
from ..runs.table import RunTable
from ..telemetry import Telemetry
from . import handshake
from .admissions import Admissions
from .feed import Feed
from .pace import Pace
from .transport import SEND_ALL, WRITABLE
from .visits import Visit

logger = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
MAX_BAD_FRAMES = 20
MAX_OUTBOX = 1000
"""Control frames that may wait for a client: answers to what it asked, and it does not read them."""
MAX_WATCHED = 64
"""Runs that one connection may watch; finished ones make room."""
SLOW_SECONDS = 0.5
"""A client whose transport is full for longer than this while it is sent what is new lags."""
MOST_LAGGING_BYTES = 256 << 10
"""Rows that a lagging client is sent at once; what is older is left out."""
BYTES_AT_ONCE = 64 << 10
"""So much is handed to the transport before it is asked again whether it takes more."""
STALLED_SECONDS = 20.0
"""A client that takes nothing for so long is given up."""
CLOSE_SECONDS = 2.0
GONE = 1006
"""The close code of a connection that ended without one."""


class _Close(Exception):  # noqa: N818 - not an error: the way out of all loops
    def __init__(self, code: CloseCode) -> None:
        self.code = code


class _Watched:
    """A run and this client's place in it."""

    def __init__(self, run: Run, after: int = 0) -> None:
        self.run = run
        self.feed = Feed(run.log, after)


class Connection:
    """One accepted WebSocket, from `hello` to its end."""

    def __init__(
        self,
        socket: WebSocket,
        engine: EngineService,
        table: RunTable,
        name: str,
        epoch: str,
        visit: Visit,
        telemetry: Telemetry,
        pace: Pace,
    ) -> None:
        self._socket = socket
        self._engine = engine
        self._table = table
        self._name = name
        self._epoch = epoch
        self._visit = visit
        self._telemetry = telemetry
        self._pace = pace
        extensions = socket.scope["extensions"]
        self._writable: asyncio.Event = extensions[WRITABLE]
        self._send_messages: Callable[[Sequence[bytes]], None] = extensions[SEND_ALL]
        self._outbox: deque[Frame] = deque()
        self._wake = asyncio.Event()
        self._overrun = asyncio.Event()
        self._nothing_left = asyncio.Event()
        self._engine_news = False
        self._watched: dict[str, _Watched] = {}
        self._admissions = Admissions(self._start, self._refuse)
        self._start_ids: set[str] = set()
        self._bad_frames = 0
        self._waited = 0.0
        self._lags = False

    async def serve(self) -> None:
        """Talk until either side ends it; afterwards no run is watched by this connection."""
        refused = handshake.refusal(self._socket)
        offered = self._socket.scope.get("subprotocols", [])
        await self._socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        if refused is not None:
            await self._socket.close(refused, REASONS[refused])
            return
        code = GONE
        with contextlib.ExitStack() as leases:
            # Given back one by one, whatever becomes of the others.
            self._telemetry.connection_opened()
            leases.callback(lambda: self._telemetry.connection_closed(code))
            leases.callback(self._unwatch_all)
            try:
                await self._greet()
                leases.callback(self._engine.listen(self._engine_changed))
                await _first_to_end(
                    self._receive_all, self._admissions.go_on, self._send_all, self._watch_outbox
                )
            except _Close as end:
                code = end.code
                with contextlib.suppress(Exception):
                    async with Patience(CLOSE_SECONDS):
                        await self._flush_outbox()
                with contextlib.suppress(Exception):
                    await self._socket.close(end.code, REASONS[end.code])
            except WebSocketDisconnect as end:
                code = end.code

    async def _greet(self) -> None:
        try:
            async with Patience(HELLO_SECONDS):
                await self._hello()
        except TimeoutError:
            raise _Close(CloseCode.HELLO_TIMEOUT) from None

    def _unwatch_all(self) -> None:
        for watched in self._watched.values():
            self._table.unwatch(watched.run, self._wake.set)

    async def told(self) -> None:
        """Wait until the client has been sent everything there is."""
        self._stir()
        await self._nothing_left.wait()

    async def _hello(self) -> None:
        frame = await self._receive()
        while not isinstance(frame, Hello):
            if frame is not None:
                self._post(Error(code=ErrorCode.UNEXPECTED, message=REASONS[CloseCode.BAD_HANDSHAKE]))
            raise _Close(CloseCode.BAD_HANDSHAKE)
        try:
            self._visit.may_enter(frame.token)
        except FrameError as error:
            self._refuse(error)
            raise _Close(CloseCode.UNAUTHORIZED) from None
        self._post(handshake.welcome(self._engine, self._table.limits, self._name, self._epoch))

    # ------------------------------------------------------------ in

    async def _receive(self) -> codec.AnyClientFrame | None:
        """The next frame, or None after one that was refused with an `error`."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data = message.get("bytes")
        if data is None:
            self._post(Error(code=ErrorCode.BAD_FRAME, message=REASONS[CloseCode.TEXT_FRAME]))
            raise _Close(CloseCode.TEXT_FRAME)
        self._telemetry.frame_received(len(data))
        frame = None
        try:
            # Decoded also where it comes too fast, so that the refusal can say of what it is.
            frame = codec.decode_client(data)
            self._visit.may_send()
            return frame
        except FrameError as error:
            self._refuse(error, frame)
            if error.code is ErrorCode.TOO_LARGE:
                raise _Close(CloseCode.FRAME_TOO_LARGE) from None
            self._bad_frames += 1
            if self._bad_frames > MAX_BAD_FRAMES:
                raise _Close(CloseCode.TOO_MANY_ERRORS) from None
            return None

    async def _receive_all(self) -> None:
        while True:
            frame = await self._receive()
            if frame is None:
                continue
            try:
                self._take(frame)
            except FrameError as error:
                self._refuse(error, frame)

    def _take(self, frame: codec.AnyClientFrame) -> None:
        match frame:
            case Ping():
                self._post(Pong(t=frame.t))
            case Start():
                self._visit.may_start(frame.id)
                self._admissions.add(frame)
            case Steer():
                self._steer(frame)
            case Stop():
                self._of(frame.run).run.cancel()
            case Resume():
                try:
                    self._resume(frame)
                except FrameError:
                    self._telemetry.resumed(ok=False)
                    raise
                self._telemetry.resumed(ok=True)
            case AskRows():
                self._of(frame.run).feed.ask(frame.start, frame.count)
                self._stir()
            case Hello():
                raise FrameError(ErrorCode.UNEXPECTED, "This connection has had its hello already.")

    async def _start(self, frame: Start) -> None:
        if frame.id in self._start_ids:
            raise FrameError(
                ErrorCode.DUPLICATE_RUN,
                f"This connection has used the id {frame.id!r} already; choose another.",
                field="id",
                id=frame.id,
            )
        live = sum(not watched.run.done for watched in self._watched.values())
        if live >= handshake.MAX_RUNS_PER_CONNECTION:
            raise FrameError(
                ErrorCode.BUSY,
                f"This connection has {live} live runs, which is all it may have. Stop one or wait.",
                id=frame.id,
            )
        self._make_room()
        run = await self._table.admit(frame, self._wake.set)
        self._start_ids.add(frame.id)
        self._add(run)

    def _make_room(self) -> None:
        """For one more run to watch; finished ones that have been sent whole give way."""
        if len(self._watched) < MAX_WATCHED:
            return
        spare = next((w.run for w in self._watched.values() if w.run.done and w.feed.idle), None)
        if spare is None:
            raise FrameError(
                ErrorCode.BUSY, f"This connection watches {MAX_WATCHED} runs, which is all it may."
            )
        del self._watched[spare.id]
        self._table.unwatch(spare, self._wake.set)

    def _resume(self, frame: Resume) -> None:
        if frame.epoch != self._epoch:
            raise FrameError(
                ErrorCode.OTHER_EPOCH,
                "The server has been restarted since that run began, and no longer knows it.",
                field="epoch",
                run=frame.run,
            )
        run = self._table.find(frame.run)
        if run is None:
            raise _unknown(frame.run, "There is no such run, or it ended too long ago.")
        if frame.after > run.log.end:
            raise FrameError(
                ErrorCode.INVALID,
                f"The run has had {run.log.end} events, so you cannot have had {frame.after}.",
                field="after",
                run=run.id,
            )
        if run.id not in self._watched:
            self._make_room()
        self._add(run, frame.after)
        self._post(
            Resumed(
                run=run.id, seq=frame.after, newest=run.log.end, rev=run.rev, strengths=run.strengths,
                settings=run.settings,
            )
        )  # fmt: skip

    def _add(self, run: Run, after: int = 0) -> None:
        """Watch a run from now on."""
        self._watched[run.id] = _Watched(run, after)
        self._table.watch(run, self._wake.set)
        self._stir()

    def _steer(self, frame: Steer) -> None:
        run = self._of(frame.run).run
        self._visit.may_steer(run.id)
        if frame.rev <= run.rev:
            raise FrameError(
                ErrorCode.STALE_REVISION,
                f"Revision {frame.rev} is not newer than {run.rev}, which the run has had already.",
                field="rev",
                run=run.id,
            )
        actions = self._table.actions(frame, run.prompt_tokens)
        if not run.done:
            run.steer(frame, actions)

    def _of(self, run_id: str) -> _Watched:
        watched = self._watched.get(run_id)
        if watched is None:
            raise _unknown(run_id, "This connection watches no such run.")
        return watched

    # ------------------------------------------------------------ out

    def _stir(self) -> None:
        """Let the send loop look again. A run that has something new wakes it by itself."""
        self._nothing_left.clear()
        self._wake.set()

    def _post(self, frame: Frame) -> None:
        self._outbox.append(frame)
        if len(self._outbox) > MAX_OUTBOX:
            self._overrun.set()
        self._stir()

    def _refuse(self, error: FrameError, frame: Frame | None = None) -> None:
        """Answer what was refused, with the names by which whoever sent it knows it."""
        self._telemetry.refused(error.code)
        run, name, rev = (
            getattr(error, key) if getattr(error, key) is not None else getattr(frame, key, None)
            for key in ("run", "id", "rev")
        )
        self._post(
            Error(code=error.code, message=error.message, run=run, id=name, rev=rev, field=error.field)
        )

    def _engine_changed(self) -> None:
        # Told once, however often it changes until then.
        self._engine_news = True
        self._stir()

    async def _watch_outbox(self) -> None:
        await self._overrun.wait()
        self._outbox.clear()
        raise _Close(CloseCode.TOO_SLOW)

    async def _send(self, frames: Sequence[Frame | WireMap]) -> None:
        """Send frames in as few writes as there is room for."""
        messages: list[bytes] = []
        size = 0
        for frame in frames:
            data = codec.encode(frame)
            messages.append(data)
            size += len(data)
            if isinstance(frame, dict):
                self._count(frame)
            if size >= BYTES_AT_ONCE:
                await self._write(messages, size)
                messages, size = [], 0
        if messages:
            await self._write(messages, size)

    def _count(self, frame: WireMap) -> None:
        if frame["type"] == "rows":
            self._telemetry.rows_sent(frame["count"])
        elif frame["type"] == "gap" and frame["kept"]:
            self._telemetry.rows_skipped(frame["count"])

    async def _write(self, messages: list[bytes], size: int) -> None:
        if not self._writable.is_set():
            await self._await_room()
        try:
            self._send_messages(messages)
        except OSError:
            raise WebSocketDisconnect(GONE) from None
        self._telemetry.frames_sent(size)

    async def _await_room(self) -> None:
        """Wait until the transport has given the client enough of what it holds."""
        patience = Patience(STALLED_SECONDS)
        try:
            async with patience:
                await self._writable.wait()
        except TimeoutError:
            self._outbox.clear()
            raise _Close(CloseCode.TOO_SLOW) from None
        finally:
            self._waited += patience.waited

    async def _flush_outbox(self) -> None:
        while self._outbox:
            await self._send([self._outbox.popleft()])

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = loop.time()
            self._waited = 0.0
            await self._flush_outbox()
            if self._engine_news:
                self._engine_news = False
                await self._send([handshake.engine_frame(self._engine)])
            for watched in list(self._watched.values()):
                await self._send(watched.feed.take(MOST_LAGGING_BYTES if self._lags else None))
            self._lags = self._waited > SLOW_SECONDS
            if (
                not self._outbox
                and not self._admissions.pending
                and all(watched.feed.idle for watched in self._watched.values())
            ):
                if not self._wake.is_set():
                    self._nothing_left.set()
            else:
                self._wake.set()
            await asyncio.sleep(max(0.0, self._pace.interval() - (loop.time() - began)))


def _unknown(run_id: str, sentence: str) -> FrameError:
    return FrameError(ErrorCode.UNKNOWN_RUN, sentence, field="run", run=run_id)


async def _first_to_end(*loops: Callable[[], Awaitable[None]]) -> None:
    """Run all, and when one ends, end the others and raise what it raised."""
    tasks = [asyncio.ensure_future(loop()) for loop in loops]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
