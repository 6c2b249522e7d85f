"""A client over connections that come and go: one reader, and the runs that it feeds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Unpack

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ..protocol import codec
from ..protocol.messages import (
    EditInfo,
    Edits,
    Engine,
    EngineStatus,
    Error,
    Finished,
    Frame,
    MetricInfo,
    ModelInfo,
    NotebookRuns,
    Resume,
    RunNotice,
    Start,
    Started,
    StartTogether,
    Stop,
    VectorInfo,
    Welcome,
)
from .asking import Asked, How, Messages, start_frame
from .errors import SteersightError, gone, unreadable
from .run import Run

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 2.0

SETTLED = ("ready", "failed", "draining", "stopped")
"""States of the engine that waiting does not change."""

ROWS_FIELDS = ("start", "count")
"""What may be wrong with a `rows` frame, which nobody waits for."""

Dial = Callable[[], Awaitable[ClientConnection]]


class Client:
    """One client over connections that come and go. Make it with `connect`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._names = itertools.count(1)
        self._starting: dict[str, asyncio.Future[Run]] = {}
        self._asking: dict[str, list[asyncio.Future[Run]]] = {}
        """The same by the frames that ask for them."""
        self._finding: dict[str, asyncio.Future[Run]] = {}
        self._runs: dict[str, Run] = {}
        self._own: set[str] = set()
        self._changed = asyncio.Condition()
        self._live = asyncio.Event()
        self._failure: SteersightError | None = None
        self.name = ""
        """What people call the server; empty until it has said so."""
        self.epoch: str | None = None
        """Which life of the server this client talks to."""
        self.reconnects = 0
        """How often the line was lost and found again."""
        self.engine: EngineStatus | None = None
        self.model: ModelInfo | None = None
        self.metrics: dict[str, MetricInfo] = {}
        self.vectors: dict[str, VectorInfo] = {}
        self.edits: dict[str, EditInfo] = {}
        """What `start` may name as `edits`, by name, in the order in which they act."""
        self.notebook_runs: list[RunNotice] = []
        """Runs of notebooks that the server keeps, the newest first; `watch` follows one by its name."""
        self.special_ids: frozenset[int] = frozenset()
        self.last_error: Error | None = None
        """The newest refusal that belongs to no call that waits, such as that of a `stop`."""

    async def send(self, frame: Frame) -> None:
        """Send one frame, as soon as there is a line."""
        while True:
            await self._live.wait()
            if self._failure is not None:
                raise self._failure
            socket = self._socket
            try:
                await socket.send(codec.encode(frame))
            except ConnectionClosed:
                self._note_loss(socket)
            else:
                return

    def _note_loss(self, socket: ClientConnection) -> None:
        # The reading task comes to know of it too, and finds another line or gives up.
        if socket is self._socket and self._failure is None:
            self._live.clear()

    async def ready(self) -> None:
        """Wait until the engine takes runs. Raises SteersightError when it does not."""
        await self.until(lambda: self.engine is not None and self.engine.state in SETTLED)
        if self.engine is not None and self.engine.state != "ready":
            code = "draining" if self.engine.state == "draining" else "engine_failed"
            raise SteersightError(code, self.engine.stage)

    async def until(self, known: Callable[[], bool]) -> None:
        """Wait until what the server said of itself satisfies `known`, such as a metric that has failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or known())
        if self._failure is not None:
            raise self._failure

    async def start(self, messages: Messages, **how: Unpack[How]) -> Run:
        """Start a run and wait until the server has admitted it. Raises SteersightError when it refuses.

        Args:
            messages: the conversation, `role`, `content` and maybe `thought` of each.
            how: see `How`; `metrics` None means the default ones.
        """
        frame = start_frame(self._name(), messages, **how)
        (run,) = await self._begun(frame, [frame])
        return run

    async def start_together(self, asked: Sequence[Asked]) -> list[Run]:
        """Start several runs that begin at the same moment and are computed in the same steps. Raises
        SteersightError when the server refuses one, and then none is started.

        Example:
            plain, steered = await client.start_together(
                [{"messages": question}, {"messages": question, "strengths": {"joy": 0.15}}]
            )
        """
        starts = [start_frame(self._name(), **each) for each in asked]
        return await self._begun(StartTogether(id=self._name(), starts=starts), starts)

    def _name(self) -> str:
        # Not only a number: a watched run's `started` carries the name that another client gave it.
        return f"c{next(self._names)}-{random.getrandbits(32):08x}"

    async def _begun(self, frame: Start | StartTogether, starts: Sequence[Start]) -> list[Run]:
        """The runs that a frame asks for, once the server has admitted all of them."""
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[Run]] = [loop.create_future() for _ in starts]
        self._starting.update((start.id, one) for start, one in zip(starts, waiting, strict=True))
        self._asking[frame.id] = waiting
        try:
            await self.send(frame)
            runs = await asyncio.gather(*waiting)
            for run, start in zip(runs, starts, strict=True):
                run.asked = start
            return runs
        finally:
            del self._asking[frame.id]
            for start in starts:
                self._starting.pop(start.id, None)

    async def watch(self, run: str) -> Run:
        """Watch a run that another connection started, from its beginning, as long as the server keeps it."""
        if (known := self._runs.get(run)) is not None:
            return known
        await self.until(lambda: self.epoch is not None)
        waiting: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self._finding[run] = waiting
        try:
            await self.send(Resume(run=run, epoch=self.epoch or ""))
            return await waiting
        finally:
            self._finding.pop(run, None)

    async def keep(self, dial_again: Dial, patience: float) -> None:
        """Read frames, and come back when the line is lost; run by `connect` until it is over.

        However it ends, everybody who waits is told.
        """
        failure = SteersightError("disconnected", "The client was closed.")
        try:
            failure = await self._stay(dial_again, patience)
        except SteersightError as error:
            failure = error
        except Exception as error:
            logger.exception("The client failed")
            failure = SteersightError(
                "failed", f"The client itself failed while it read from the server ({error!r})."
            )
        finally:
            await self._fail(failure)

    async def _stay(self, dial_again: Dial, patience: float) -> SteersightError:
        """Read over one line after another; returns why there is none any more."""
        while True:
            failure = await self._read()
            self._live.clear()
            if failure.code != "disconnected" or patience <= 0:
                return failure
            self._give_back(
                SteersightError(
                    "disconnected",
                    f"{failure} It is not known whether the server took the question; ask again.",
                )
            )
            socket = await self._found(dial_again, patience)
            if socket is None:
                return failure
            self._socket = socket
            self.reconnects += 1

    def _give_back(self, failure: SteersightError) -> None:
        """Tell those who wait for an answer that none will come over this line."""
        for waiting in [*self._starting.values(), *self._finding.values()]:
            if not waiting.done():
                waiting.set_exception(failure)

    async def _read(self) -> SteersightError:
        """Take frames until the connection ends; returns why it did."""
        try:
            async for data in self._socket:
                if isinstance(data, bytes):
                    await self._take_bytes(data)
        except ConnectionClosed as error:
            return gone(error)
        return SteersightError("disconnected", "The server closed the connection.")

    async def _take_bytes(self, data: bytes) -> None:
        """Take one frame. One that cannot be read ends the run or the call it belongs to.

        Raises SteersightError where it belongs to none, for then nobody knows what was missed.
        """
        try:
            frame = codec.read_server(data)
            if frame is not None:
                await self._take(frame)
        except codec.FrameError as error:
            failure = unreadable(error.message)
            waiting = self._starting.get(error.id or "") or self._finding.get(error.run or "")
            if waiting is not None and not waiting.done():
                waiting.set_exception(failure)
            elif error.run is not None:
                await self._lose(error.run, failure)
            else:
                raise failure from None

    async def _lose(self, name: str, failure: SteersightError) -> None:
        """A run can no longer be followed."""
        run = self._runs.pop(name, None)
        if run is not None:
            await run.fail(failure)

    async def _found(self, dial_again: Dial, patience: float) -> ClientConnection | None:
        """Another line to the server, or None when there was none in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                pause = 0.05
                while True:
                    await asyncio.sleep(pause * (1 - random.random() / 2))  # noqa: S311 - nobody guesses at it
                    with contextlib.suppress(SteersightError):
                        return await dial_again()
                    pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
        return None

    async def _take(self, frame: Frame) -> None:
        match frame:
            case Welcome():
                self.name = frame.name
                self.metrics = {metric.id: metric for metric in frame.metrics}
                self.notebook_runs = []
                self.edits = {edit.name: edit for edit in frame.edits}
                await self._arrive(frame.epoch)
                await self._know(frame.engine, frame.model, frame.vectors)
            case Engine():
                self.metrics = {metric.id: metric for metric in frame.metrics}
                # Not checked once more: the state may be one that only a newer server knows.
                status = EngineStatus.model_construct(
                    state=frame.state, stage=frame.stage, progress=frame.progress
                )
                await self._know(status, frame.model, frame.vectors)
            case Edits():
                async with self._changed:
                    self.edits = {edit.name: edit for edit in frame.edits}
                    self._changed.notify_all()
            case NotebookRuns():
                async with self._changed:
                    self.notebook_runs = frame.runs
                    self._changed.notify_all()
            case Started() if frame.run not in self._runs:
                run = self._runs[frame.run] = Run(self, frame)
                waiting = self._finding.get(frame.run) or self._starting.get(frame.id)
                if frame.id in self._starting:
                    self._own.add(frame.run)
                if waiting is not None and not waiting.done():
                    waiting.set_result(run)
            case Error():
                await self._take_error(frame)
            case _:
                await self._take_event(frame, getattr(frame, "run", ""))

    async def _take_event(self, frame: Frame, name: str) -> None:
        """Hand a frame to its run. One that nobody here follows is left alone."""
        run = self._runs.get(name)
        if run is None:
            return
        try:
            asked = await run.take(frame)
        except (LookupError, ValueError) as error:
            await self._lose(name, unreadable(f"It contradicts itself or what came before ({error})."))
            return
        for question in asked:
            await self._answer(question)
        if isinstance(frame, Finished):
            self._own.discard(name)
            if not run.has_gaps:
                del self._runs[name]

    async def _take_error(self, frame: Error) -> None:
        """Tell whoever was refused: by the names in the frame, or nobody."""
        refusal = SteersightError(frame.code, frame.message, frame.field)
        run = self._runs.get(frame.run or "")
        waiting = self._asking.get(frame.id or "", [])
        if (finding := self._finding.get(frame.run or "")) is not None:
            waiting = [finding]
        if waiting:
            for one in waiting:
                if not one.done():
                    one.set_exception(refusal)
        elif run is not None and frame.code in ("unknown_run", "other_epoch"):
            await self._lose(run.id, refusal)
        elif run is not None and frame.rev is not None:
            await run.refuse(frame.rev, refusal)
            if frame.code == "stale_revision":  # somebody else steers it too; the answer says how far
                await self._answer(Resume(run=run.id, epoch=self.epoch or "", after=run.seq))
        elif run is None or frame.field in ROWS_FIELDS or not await run.refuse_watch(refusal):
            self.last_error = frame

    async def _answer(self, frame: Frame) -> None:
        """Send from the reading task, which must never wait for a line: only it finds the next one.

        Raises ConnectionClosed.
        """
        await self._socket.send(codec.encode(frame))

    async def _arrive(self, epoch: str) -> None:
        """A line is there. Runs of this life of the server are resumed; those of another are gone."""
        before, self.epoch = self.epoch, epoch
        live = [run for run in self._runs.values() if run.finished is None]
        if before not in (None, epoch):
            self._runs.clear()
            for run in live:
                sentence = "The server has been restarted, and its runs are gone."
                await run.fail(SteersightError("other_epoch", sentence))
            live = []
        for run in live:
            await self._answer(Resume(run=run.id, epoch=epoch, after=run.seq))
        self._live.set()

    async def _know(self, engine: EngineStatus, model: ModelInfo | None, vectors: list[VectorInfo]) -> None:
        async with self._changed:
            self.engine = engine
            self.model = model or self.model
            self.vectors = {vector.id: vector for vector in vectors}
            self.special_ids = frozenset(self.model.special_ids if self.model else ())
            self._changed.notify_all()

    async def _fail(self, failure: SteersightError) -> None:
        async with self._changed:
            self._failure = failure
            self._changed.notify_all()
        self._live.set()  # so that who waits to send is told too
        self._give_back(failure)
        for run in self._runs.values():
            await run.fail(failure)

    async def leave(self) -> None:
        """End the runs that this client started, as far as there is a line, and hang up."""
        for run in self._own:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(codec.encode(Stop(run=run)))
        await self._socket.close()
