"""One connection's conversation: what its client says, and the runs it watches.

What the client is sent goes through `sender.py`, and nothing here waits for it. The receive loop waits for
nothing but the next frame: starts, whose prompts take a while, are admitted beside it (`admissions.py`).

When the connection ends, its runs go on for the grace time, and whoever resumes them goes on watching.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..engine.service import EngineService
from ..patience import Patience
from ..protocol import codec
from ..protocol.close import REASONS, CloseCode
from ..protocol.codec import FrameError
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
    StartTogether,
    Steer,
    Stop,
    Watch,
)
from ..runs.run import Run
from ..runs.table import RunTable
from ..telemetry import Telemetry
from .admissions import Admissions, Asked, runs_of
from .feed import Feed
from .handshake import MAX_RUNS_PER_CONNECTION, Offering, refusal
from .pace import Pace
from .sender import GONE, Close, Sender
from .visits import Visit

logger = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
MAX_BAD_FRAMES = 20
MAX_WATCHED = 64
"""Runs that one connection may watch; finished ones make room."""
CLOSE_SECONDS = 2.0


class Connection:
    """One accepted WebSocket, from `hello` to its end."""

    def __init__(
        self,
        socket: WebSocket,
        engine: EngineService,
        table: RunTable,
        offering: Offering,
        visit: Visit,
        telemetry: Telemetry,
        pace: Pace,
    ) -> None:
        self._socket = socket
        self._engine = engine
        self._table = table
        self._offering = offering
        self._visit = visit
        self._telemetry = telemetry
        self._watched: dict[str, Run] = {}
        self._admissions = Admissions(self._start, self._refuse)
        self._sender = Sender(socket, pace, telemetry, more_to_come=lambda: bool(self._admissions.pending))
        self._post = self._sender.post
        self._start_ids: set[str] = set()
        self._bad_frames = 0

    async def serve(self) -> None:
        """Talk until either side ends it; afterwards no run is watched by this connection."""
        refused = refusal(self._socket)
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
            leases.callback(self._sender.close)
            try:
                await self._greet()
                changed = self._sender.state_changed
                leases.callback(self._engine.listen(partial(changed, self._offering.engine_frame)))
                for state in (self._offering.edits, self._table.notices.telling):
                    leases.callback(state.listen(partial(changed, state.frame)))
                await _first_to_end(
                    self._receive_all, self._admissions.go_on, self._sender.run, self._sender.watch_outbox
                )
            except Close as end:
                code = end.code
                with contextlib.suppress(Exception):
                    async with Patience(CLOSE_SECONDS):
                        await self._sender.flush()
                with contextlib.suppress(Exception):
                    await self._socket.close(end.code, REASONS[end.code])
            except WebSocketDisconnect as end:
                code = end.code

    async def _greet(self) -> None:
        try:
            async with Patience(HELLO_SECONDS):
                await self._hello()
        except TimeoutError:
            raise Close(CloseCode.HELLO_TIMEOUT) from None

    def _unwatch_all(self) -> None:
        for run in self._watched.values():
            self._table.unwatch(run, self._sender.look)

    async def told(self) -> None:
        """Wait until the client has been sent everything there is."""
        await self._sender.told()

    async def _hello(self) -> None:
        frame = await self._receive()
        while not isinstance(frame, Hello):
            if frame is not None:
                self._post(Error(code=ErrorCode.UNEXPECTED, message=REASONS[CloseCode.BAD_HANDSHAKE]))
            raise Close(CloseCode.BAD_HANDSHAKE)
        try:
            self._visit.may_enter(frame.token)
        except FrameError as error:
            self._refuse(error)
            raise Close(CloseCode.UNAUTHORIZED) from None
        self._post(self._offering.welcome())
        if self._table.notices:
            self._post(self._table.notices.telling.frame())

    # ------------------------------------------------------------ in

    async def _receive(self) -> codec.AnyClientFrame | None:
        """The next frame, or None after one that was refused with an `error`."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data = message.get("bytes")
        if data is None:
            self._post(Error(code=ErrorCode.BAD_FRAME, message=REASONS[CloseCode.TEXT_FRAME]))
            raise Close(CloseCode.TEXT_FRAME)
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
                raise Close(CloseCode.FRAME_TOO_LARGE) from None
            self._bad_frames += 1
            if self._bad_frames > MAX_BAD_FRAMES:
                raise Close(CloseCode.TOO_MANY_ERRORS) from None
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
            case Start() | StartTogether():
                self._visit.may_start(frame.id, runs_of(frame))
                self._admissions.add(frame)
            case Steer():
                self._steer(frame)
            case Watch():
                self._watch_with(frame)
            case Stop():
                self._of(frame.run).cancel()
            case Resume():
                try:
                    self._resume(frame)
                except FrameError:
                    self._telemetry.resumed(ok=False)
                    raise
                self._telemetry.resumed(ok=True)
            case AskRows():
                self._sender.feeds[self._of(frame.run).id].ask(frame.start, frame.count)
                self._sender.look()
            case Hello():
                raise FrameError(ErrorCode.UNEXPECTED, "This connection has had its hello already.")

    async def _start(self, frame: Asked) -> None:
        ids = self._new_ids(frame)
        live = sum(not run.done for run in self._watched.values())
        if live + runs_of(frame) > MAX_RUNS_PER_CONNECTION:
            raise FrameError(
                ErrorCode.BUSY,
                f"This connection has {live} live runs, and {MAX_RUNS_PER_CONNECTION} is all it may have. "
                "Stop one or wait.",
            )
        self._make_room(runs_of(frame))
        if isinstance(frame, StartTogether):
            runs = await self._table.admit_together(frame, self._sender.look)
        else:
            runs = [await self._table.admit(frame, self._sender.look)]
        self._start_ids |= ids
        for run in runs:
            self._add(run)

    def _new_ids(self, frame: Asked) -> set[str]:
        """The names that a frame gives. Raises FrameError where one of them has been given before."""
        names = {"id": frame.id}
        if isinstance(frame, StartTogether):
            names |= {f"starts.{number}.id": start.id for number, start in enumerate(frame.starts)}
        found: set[str] = set()
        for path, name in names.items():
            if name in self._start_ids or name in found:
                raise FrameError(
                    ErrorCode.DUPLICATE_RUN,
                    f"This connection has used the id {name!r} already; choose another.",
                    field=path,
                )
            found.add(name)
        return found

    def _make_room(self, runs: int = 1) -> None:
        """For so many more runs to watch; finished ones that have been sent whole give way."""
        idle = (run for run in list(self._watched.values()) if run.done and self._sender.feeds[run.id].idle)
        while len(self._watched) + runs > MAX_WATCHED:
            spare = next(idle, None)
            if spare is None:
                raise FrameError(
                    ErrorCode.BUSY, f"This connection watches {MAX_WATCHED} runs, which is all it may."
                )
            del self._watched[spare.id], self._sender.feeds[spare.id]
            self._table.unwatch(spare, self._sender.look)

    def _resume(self, frame: Resume) -> None:
        if frame.epoch != self._offering.epoch:
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
        self._watched[run.id] = run
        self._sender.feeds[run.id] = Feed(run.log, after)
        self._table.watch(run, self._sender.look)
        self._sender.look()

    def _steer(self, frame: Steer) -> None:
        run = self._of(frame.run)
        self._visit.may_steer(run.id)
        if frame.rev <= run.rev:
            raise FrameError(
                ErrorCode.STALE_REVISION,
                f"Revision {frame.rev} is not newer than {run.rev}, which the run has had already.",
                field="rev",
                run=run.id,
            )
        actions = self._table.actions(frame, run.prompt_tokens, run.adapter)
        if not run.done:
            run.steer(frame, actions)

    def _watch_with(self, frame: Watch) -> None:
        run = self._of(frame.run)
        self._visit.may_steer(run.id)
        self._table.watch_with(frame, run)

    def _of(self, run_id: str) -> Run:
        run = self._watched.get(run_id)
        if run is None:
            raise _unknown(run_id, "This connection watches no such run.")
        return run

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
