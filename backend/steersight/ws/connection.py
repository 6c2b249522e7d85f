"""One connection's conversation: a receive loop, a send loop, and the runs it owns.

The send loop is the only place that writes. It takes control frames from a short outbox and run events from
the runs' logs, from where this client has got to: a slow client makes its own frames larger and later, and
nothing else waits for it. When the client is gone, its runs are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..engine.service import EngineService
from ..protocol import codec
from ..protocol.close import REASONS, CloseCode
from ..protocol.codec import FrameError
from ..protocol.messages import SUBPROTOCOL, Error, ErrorCode, Frame, Hello, Ping, Pong, Start, Steer, Stop
from ..runs.run import Run
from ..runs.table import RunTable
from . import handshake
from .visits import Visit

logger = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
FRAME_INTERVAL_SECONDS = 1 / 60
MAX_BAD_FRAMES = 20
MAX_OUTBOX = 1000


class _Close(Exception):  # noqa: N818 - not an error: the way out of both loops
    def __init__(self, code: CloseCode) -> None:
        self.code = code


class Connection:
    """One accepted WebSocket, from `hello` to its end."""

    def __init__(
        self, socket: WebSocket, engine: EngineService, table: RunTable, name: str, epoch: str, visit: Visit
    ) -> None:
        self._socket = socket
        self._engine = engine
        self._table = table
        self._name = name
        self._epoch = epoch
        self._visit = visit
        self._outbox: deque[Frame] = deque()
        self._wake = asyncio.Event()
        self._runs: dict[str, tuple[Run, int]] = {}  # run id -> run and how far its log has been sent
        self._start_ids: set[str] = set()
        self._bad_frames = 0

    async def serve(self) -> None:
        """Talk until either side ends it; afterwards no run of this connection is left."""
        refused = handshake.refusal(self._socket)
        offered = self._socket.scope.get("subprotocols", [])
        await self._socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        if refused is not None:
            await self._socket.close(refused, REASONS[refused])
            return
        unlisten: Callable[[], None] = lambda: None  # noqa: E731
        try:
            try:
                async with asyncio.timeout(HELLO_SECONDS):
                    await self._hello()
            except TimeoutError:
                raise _Close(CloseCode.HELLO_TIMEOUT) from None
            unlisten = self._engine.listen(lambda: self._post(handshake.engine_frame(self._engine)))
            await _first_to_end(self._receive_all, self._send_all)
        except _Close as end:
            with contextlib.suppress(Exception):
                await self._flush_outbox()
                await self._socket.close(end.code, REASONS[end.code])
        except WebSocketDisconnect:
            pass
        finally:
            unlisten()
            for run, _ in self._runs.values():
                run.cancel()

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
        self._post(handshake.welcome(self._engine, self._name, self._epoch))

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
        try:
            self._visit.may_send()
            return codec.decode_client(data)
        except FrameError as error:
            self._refuse(error)
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
                await self._take(frame)
            except FrameError as error:
                self._refuse(error)

    async def _take(self, frame: codec.AnyClientFrame) -> None:
        match frame:
            case Ping():
                self._post(Pong(t=frame.t))
            case Start():
                self._start(frame)
            case Steer():
                await self._steer(frame)
            case Stop():
                self._run(frame.run).cancel()
            case Hello():
                raise FrameError(ErrorCode.UNEXPECTED, "This connection has had its hello already.")

    def _start(self, frame: Start) -> None:
        if frame.id in self._start_ids:
            raise FrameError(
                ErrorCode.DUPLICATE_RUN,
                f"This connection has used the id {frame.id!r} already; choose another.",
                field="id",
                id=frame.id,
            )
        live = sum(not run.done for run, _ in self._runs.values())
        if live >= handshake.MAX_RUNS_PER_CONNECTION:
            raise FrameError(
                ErrorCode.BUSY,
                f"This connection has {live} live runs, which is all it may have. Stop one or wait.",
                id=frame.id,
            )
        self._visit.may_start(frame.id)
        run = self._table.admit(frame, self._wake.set)
        self._start_ids.add(frame.id)
        self._runs[run.id] = (run, 0)
        self._wake.set()

    async def _steer(self, frame: Steer) -> None:
        run = self._run(frame.run)
        self._visit.may_steer(run.id)
        if frame.rev <= run.rev:
            raise FrameError(
                ErrorCode.STALE_REVISION,
                f"Revision {frame.rev} is not newer than {run.rev}, which the run has had already.",
                field="rev",
                run=run.id,
            )
        try:
            actions = self._table.actions(frame, run.prompt_tokens)
        except FrameError as error:
            error.run = run.id
            raise
        if not run.done:
            await run.steer(frame.rev, actions)

    def _run(self, run_id: str) -> Run:
        entry = self._runs.get(run_id)
        if entry is None:
            raise FrameError(
                ErrorCode.UNKNOWN_RUN, "This connection has no such run.", field="run", run=run_id
            )
        return entry[0]

    # ------------------------------------------------------------ out

    def _post(self, frame: Frame) -> None:
        self._outbox.append(frame)
        self._wake.set()

    def _refuse(self, error: FrameError) -> None:
        self._post(
            Error(code=error.code, message=error.message, run=error.run, id=error.id, field=error.field)
        )

    async def _flush_outbox(self) -> None:
        while self._outbox:
            await self._socket.send_bytes(codec.encode(self._outbox.popleft()))

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = loop.time()
            if len(self._outbox) > MAX_OUTBOX:
                self._outbox.clear()
                raise _Close(CloseCode.TOO_SLOW)
            await self._flush_outbox()
            for run_id, (run, cursor) in list(self._runs.items()):
                frames, reached = run.log.frames_since(cursor)
                for frame in frames:
                    await self._socket.send_bytes(codec.encode(frame))
                self._runs[run_id] = (run, reached)
            # Whatever comes within one display frame goes out together.
            await asyncio.sleep(max(0.0, FRAME_INTERVAL_SECONDS - (loop.time() - began)))


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
