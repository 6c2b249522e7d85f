"""Async client of the wire protocol: the terminal chat, benchmarks, tests and notebooks use it.

    async with connect("ws://127.0.0.1:8000/ws") as client:
        await client.ready()
        run = await client.start([{"role": "user", "content": "Hello"}], strengths={"joy": 0.15})
        async for text in run.texts():
            print(text, end="")

One task reads the socket and hands every frame to the run it belongs to, so several runs share a connection.
When the line is lost, the client comes back by itself and resumes its runs from the last event it has had;
whoever waits for text or rows notices a pause, nothing else. Only when it cannot come back in time, or finds
another life of the server, is everybody who waits told with one sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from .protocol import codec
from .protocol.messages import (
    MAX_ROWS_ASKED,
    SUBPROTOCOL,
    Applied,
    AskRows,
    ChatMessage,
    Engine,
    EngineStatus,
    Error,
    Finished,
    Frame,
    Gap,
    Hello,
    Lens,
    LensOptions,
    MetricInfo,
    ModelInfo,
    Queued,
    Resume,
    Resumed,
    Rows,
    Sampling,
    Start,
    Started,
    Steer,
    Stop,
    Tokens,
    VectorInfo,
    VectorSetting,
    Welcome,
)
from .protocol.text import before_stop

PATIENCE_SECONDS = 30.0
"""As long as a server keeps a run that nobody watches, unless it was told otherwise."""
LONGEST_PAUSE_SECONDS = 2.0

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SteersightError(RuntimeError):
    """The server refused something, or is gone. `code` is one of ErrorCode's values, or `disconnected`."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


def to_display(values: NDArray[np.float16], transforms: Sequence[str]) -> NDArray[np.float32]:
    """Undo the transform of each metric: [rows, metrics, layers] half floats -> fp32 in the metric's unit."""
    import numpy as np

    out = values.astype(np.float32)
    for index, transform in enumerate(transforms):
        if transform == "log2":
            out[:, index] = np.exp2(out[:, index])
    return out


class Run:
    """One generation as the client knows it; grows while the reply is written."""

    def __init__(self, client: Client, started: Started) -> None:
        self.id = started.run
        self.prompt = started.prompt
        self.metrics = started.metrics
        self.ids: list[int] = []
        """Ids of the reply so far."""
        self.pieces: list[str] = []
        """Text of each reply token, special ones included."""
        self.logprobs: list[float | None] = []
        """Per reply token; minus this is its surprisal in nats."""
        self.ranks: list[int | None] = []
        """Per reply token: its place in the model's final distribution, 1 for the likeliest."""
        self.guesses: dict[int, dict[int, list[tuple[str, float]]]] = {}
        """Position -> layer -> (text, probability) of the likeliest tokens for the position after, by the raw
        logit lens; empty without `lens`."""
        self.revs: dict[int, int] = {}
        """Position -> revision that computed its row."""
        self.finished: Finished | None = None
        self.seq = 0
        """The newest event that has been had."""
        self.waiting = 0
        """Place in the server's queue; 0 is none."""
        self.has_gaps = False
        """Whether rows were left out and asked for again, which may come after the end."""
        self._client = client
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._entropy: dict[int, float] = {}
        self._names: dict[int, str] = {}
        self._applied: list[Applied] = []
        self._rev = 0
        self._changed = asyncio.Condition()
        self._failure: SteersightError | None = None

    @property
    def text(self) -> str:
        """The reply so far: without special tokens, cut where a stop string ended it."""
        special = self._client.special_ids
        text = "".join(
            piece for token, piece in zip(self.ids, self.pieces, strict=True) if token not in special
        )
        return before_stop(text, self.finished.stop if self.finished else None)

    def rows(self) -> NDArray[np.float32]:
        """[prompt + reply tokens, metrics, layers] fp32 in the metrics' units; NaN where there is no row."""
        import numpy as np

        layers = self._client.model.layers if self._client.model else 0
        total = len(self.prompt.ids) + len(self.ids)
        out = np.full((total, len(self.metrics), layers), np.nan, dtype=np.float32)
        for position, row in self._rows.items():
            if position < total:
                out[position] = row
        return out

    def entropy(self) -> NDArray[np.float32]:
        """[prompt + reply tokens] nats: entropy of the distribution from which the token after each position
        was drawn; NaN where not known."""
        import numpy as np

        out = np.full(len(self.prompt.ids) + len(self.ids), np.nan, dtype=np.float32)
        for position, nats in self._entropy.items():
            if position < len(out):
                out[position] = nats
        return out

    async def steer(
        self, strengths: Mapping[str, float], settings: Mapping[str, VectorSetting] | None = None
    ) -> int:
        """Replace all strengths and settings; what is not named goes to 0. Returns the revision sent."""
        self._rev += 1
        await self._client.send(
            Steer(run=self.id, rev=self._rev, strengths=dict(strengths), settings=dict(settings or {}))
        )
        return self._rev

    async def applied(self, rev: int) -> int:
        """Wait until a row computed with revision `rev`, or a newer one, has come; returns its position.

        Raises SteersightError when the run ends before.
        """
        await self._until(lambda: self.finished is not None or any(a.rev >= rev for a in self._applied))
        for applied in self._applied:
            if applied.rev >= rev:
                return applied.position
        raise SteersightError("finished", "The run ended before the new strengths came into force.")

    async def stop(self) -> None:
        """Ask the server to end the run; `wait` returns when it has."""
        await self._client.send(Stop(run=self.id))

    async def wait(self) -> Finished:
        """Wait for the end of the run."""
        await self._until(lambda: self.finished is not None)
        assert self.finished is not None  # noqa: S101 - what _until has waited for
        return self.finished

    async def texts(self) -> AsyncIterator[str]:
        """The reply in pieces as it is written. A stop string's first characters may be among them."""
        shown = 0
        while True:
            await self._until(lambda seen=shown: len(self.ids) > seen or self.finished is not None)
            special = self._client.special_ids
            fresh = list(zip(self.ids[shown:], self.pieces[shown:], strict=True))
            shown += len(fresh)
            piece = "".join(text for token, text in fresh if token not in special)
            if piece:
                yield piece
            if self.finished is not None and shown == len(self.ids):
                return

    async def _until(self, ready: Any) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or ready())
        if self._failure is not None and not ready():
            raise self._failure

    async def _take(self, frame: Frame) -> None:
        async with self._changed:
            self.seq = max(self.seq, getattr(frame, "seq", 0))
            match frame:
                case Tokens():
                    known = frame.start - len(self.prompt.ids)
                    skip = len(self.ids) - known
                    self.ids += frame.ids[skip:]
                    self.pieces += frame.texts[skip:]
                    self.logprobs += frame.logprobs[skip:]
                    self.ranks += frame.ranks[skip:]
                case Rows():
                    self._take_rows(frame)
                case Lens():
                    self._take_lens(frame)
                case Applied():
                    self._applied.append(frame)
                case Queued():
                    self.waiting = frame.position
                case Resumed():
                    self._rev = max(self._rev, frame.rev)
                case Finished():
                    self.finished = frame
            self._changed.notify_all()
        if isinstance(frame, Gap) and frame.kept:
            self.has_gaps = True
            await self._ask_again(frame.start, frame.start + frame.count)

    async def _ask_again(self, start: int, end: int) -> None:
        # Tokens come first, so that whatever a gap says beyond them is no row of this run.
        end = min(end, len(self.prompt.ids) + len(self.ids))
        for first in range(start, end, MAX_ROWS_ASKED):
            count = min(MAX_ROWS_ASKED, end - first)
            await self._client.send(AskRows(run=self.id, start=first, count=count))

    def _take_rows(self, frame: Rows) -> None:
        import numpy as np

        shape = (frame.count, len(frame.metrics), frame.layers)
        values = to_display(
            np.frombuffer(frame.data, dtype="<f2").reshape(shape),
            [self._client.metrics[name].transform for name in frame.metrics],
        )
        for offset, rev in enumerate(frame.revs):
            self._rows[frame.start + offset] = values[offset]
            self.revs[frame.start + offset] = rev
        if frame.entropy is not None:
            nats = np.frombuffer(frame.entropy, dtype="<f2").tolist()
            self._entropy.update(enumerate(nats, start=frame.start))

    def _take_lens(self, frame: Lens) -> None:
        import numpy as np

        self._names.update(zip(frame.new_ids, frame.new_texts, strict=True))
        shape = (frame.count, len(frame.layers), frame.top)
        ids = np.frombuffer(frame.ids, dtype="<i4").reshape(shape).tolist()
        shares = np.frombuffer(frame.probabilities, dtype="<f2").reshape(shape).tolist()
        for row in range(frame.count):
            self.guesses[frame.start + row] = {
                layer: [(self._names[token], share) for token, share in zip(*pair, strict=True)]
                for layer, *pair in zip(frame.layers, ids[row], shares[row], strict=True)
            }

    async def _fail(self, failure: SteersightError) -> None:
        async with self._changed:
            self._failure = failure
            self._changed.notify_all()


class Client:
    """One client over connections that come and go. Make it with `connect`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._names = itertools.count(1)
        self._starting: dict[str, asyncio.Future[Run]] = {}
        self._finding: dict[str, asyncio.Future[Run]] = {}
        self._runs: dict[str, Run] = {}
        self._own: set[str] = set()
        self._changed = asyncio.Condition()
        self._live = asyncio.Event()
        self._failure: SteersightError | None = None
        self.epoch: str | None = None
        """Which life of the server this client talks to."""
        self.reconnects = 0
        """How often the line was lost and found again."""
        self.engine: EngineStatus | None = None
        self.model: ModelInfo | None = None
        self.metrics: dict[str, MetricInfo] = {}
        self.vectors: dict[str, VectorInfo] = {}
        self.special_ids: frozenset[int] = frozenset()
        self.last_error: Error | None = None
        """The newest refusal that belongs to no waiting call, such as that of a `steer`."""

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
        """Wait until the engine takes runs. Raises SteersightError when it failed to start."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._failure or (self.engine and self.engine.state in ("ready", "failed", "stopped"))
            )
        if self._failure is not None:
            raise self._failure
        if self.engine is None or self.engine.state != "ready":
            raise SteersightError("engine_failed", self.engine.stage if self.engine else "No engine.")

    async def until(self, known: Callable[[], bool]) -> None:
        """Wait until what the server said of itself satisfies `known`, such as a metric that has failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or known())
        if self._failure is not None:
            raise self._failure

    async def start(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        sampling: Sampling | None = None,
        strengths: Mapping[str, float] | None = None,
        settings: Mapping[str, VectorSetting] | None = None,
        write_on: bool = False,
        metrics: list[str] | None = None,
        lens: LensOptions | None = None,
        entropy: bool = False,
        prompt_rows: bool = True,
    ) -> Run:
        """Start a run and wait until the server has admitted it. Raises SteersightError when it refuses.

        `metrics` None means the default ones; see `messages.Start` for the rest.
        """
        # Not only a number: a watched run's `started` carries the name that another client gave it.
        name = f"c{next(self._names)}-{random.getrandbits(32):08x}"
        waiting: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self._starting[name] = waiting
        frame = Start(
            id=name,
            messages=[ChatMessage.model_validate(dict(message)) for message in messages],
            sampling=sampling or Sampling(),
            strengths=dict(strengths or {}),
            settings=dict(settings or {}),
            write_on=write_on,
            metrics=metrics,
            lens=lens,
            entropy=entropy,
            prompt_rows=prompt_rows,
        )
        try:
            await self.send(frame)
            return await waiting
        finally:
            self._starting.pop(name, None)

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

    async def keep(self, dial_again: Callable[[], Any], patience: float) -> None:
        """Read frames, and come back when the line is lost; run by `connect` until it is over."""
        while True:
            failure = await self._read()
            self._live.clear()
            lost = SteersightError(
                "disconnected",
                f"{failure} It is not known whether the server took the question; ask again.",
            )
            for waiting in [*self._starting.values(), *self._finding.values()]:
                if not waiting.done():
                    waiting.set_exception(failure if patience <= 0 else lost)
            socket = await self._found(dial_again, patience) if failure.code == "disconnected" else None
            if socket is None:
                await self._fail(failure)
                return
            self._socket = socket
            self.reconnects += 1

    async def _read(self) -> SteersightError:
        """Take frames until the connection ends; returns why it did."""
        try:
            async for data in self._socket:
                if isinstance(data, bytes):
                    await self._take(codec.decode_server(data))
        except ConnectionClosed as error:
            return _gone(error)
        return SteersightError("disconnected", "The server closed the connection.")

    async def _found(self, dial_again: Callable[[], Any], patience: float) -> ClientConnection | None:
        """Another line to the server, or None when there was none in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, patience)):
                pause = 0.05
                while patience > 0:
                    await asyncio.sleep(pause * (1 - random.random() / 2))  # noqa: S311 - nobody guesses at it
                    with contextlib.suppress(SteersightError):
                        found: ClientConnection = await dial_again()
                        return found
                    pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
        return None

    async def _take(self, frame: Any) -> None:
        match frame:
            case Welcome():
                self.metrics = {metric.id: metric for metric in frame.metrics}
                await self._arrive(frame.epoch)
                await self._know(frame.engine, frame.model, frame.vectors)
            case Engine():
                self.metrics = {metric.id: metric for metric in frame.metrics}
                status = EngineStatus(state=frame.state, stage=frame.stage, progress=frame.progress)
                await self._know(status, frame.model, frame.vectors)
            case Started() if frame.run not in self._runs:
                run = self._runs[frame.run] = Run(self, frame)
                waiting = self._finding.get(frame.run) or self._starting.get(frame.id)
                if frame.id in self._starting:
                    self._own.add(frame.run)
                if waiting is not None and not waiting.done():
                    waiting.set_result(run)
            case Error() if frame.run in self._finding:
                self._finding[frame.run].set_exception(
                    SteersightError(frame.code, frame.message, frame.field)
                )
            case Error() if frame.run in self._runs and frame.code in ("unknown_run", "other_epoch"):
                await self._runs.pop(frame.run)._fail(SteersightError(frame.code, frame.message))
            case Error():
                waiting = self._starting.get(frame.id or "")
                if waiting is not None and not waiting.done():
                    waiting.set_exception(SteersightError(frame.code, frame.message, frame.field))
                else:
                    self.last_error = frame
            case _:
                target = self._runs.get(getattr(frame, "run", ""))
                if target is not None:
                    await target._take(frame)
                    if isinstance(frame, Finished):
                        self._own.discard(frame.run)
                        if not target.has_gaps:
                            del self._runs[frame.run]

    async def _arrive(self, epoch: str) -> None:
        """A line is there. Runs of this life of the server are resumed; those of another are gone."""
        before, self.epoch = self.epoch, epoch
        live = [run for run in self._runs.values() if run.finished is None]
        if before not in (None, epoch):
            self._runs.clear()
            for run in live:
                sentence = "The server has been restarted, and its runs are gone."
                await run._fail(SteersightError("other_epoch", sentence))
            live = []
        for run in live:
            await self._socket.send(codec.encode(Resume(run=run.id, epoch=epoch, after=run.seq)))
        self._live.set()

    async def _know(self, engine: EngineStatus, model: ModelInfo | None, vectors: list[VectorInfo]) -> None:
        async with self._changed:
            self.engine = engine
            self.model = model
            self.vectors = {vector.id: vector for vector in vectors}
            self.special_ids = frozenset(model.special_ids if model else ())
            self._changed.notify_all()

    async def _fail(self, failure: SteersightError) -> None:
        async with self._changed:
            self._failure = failure
            self._changed.notify_all()
        self._live.set()  # so that who waits to send is told too
        for run in self._runs.values():
            await run._fail(failure)

    async def leave(self) -> None:
        """End the runs that this client started, as far as there is a line, and hang up."""
        for run in self._own:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(codec.encode(Stop(run=run)))
        await self._socket.close()


def _gone(error: ConnectionClosed) -> SteersightError:
    received = error.rcvd
    reason = received.reason if received and received.reason else "It may have stopped."
    # Codes of our own name what the client did; a client that comes back would do it again.
    code = "refused" if received and 4000 <= received.code < 5000 else "disconnected"
    return SteersightError(code, f"The connection to the server is gone. {reason}")


@asynccontextmanager
async def connect(
    url: str, token: str | None = None, *, patience: float = PATIENCE_SECONDS
) -> AsyncIterator[Client]:
    """Open a connection and say hello; `client.engine` is known once `ready` has returned.

    Args:
        url: address of the server's socket, such as ws://127.0.0.1:8000/ws.
        token: what the server asks for, if it does; without one, that of STEERSIGHT_TOKEN.
        patience: seconds to try to come back when the line is lost; 0 gives up at once. Runs are resumed.

    Raises: SteersightError when no server answers, or it refuses.
    """
    token = token or os.environ.get("STEERSIGHT_TOKEN") or None

    async def call() -> ClientConnection:
        try:
            socket = await dial(url, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=None)
            await socket.send(codec.encode(Hello(token=token)))
        except InvalidStatus as error:
            said = (error.response.body or b"").decode(errors="replace").strip()
            raise SteersightError(
                "disconnected", said or f"The server at {url} answered {error.response.status_code}."
            ) from None
        except (OSError, InvalidHandshake, ConnectionClosed) as error:
            raise SteersightError(
                "disconnected", f"No Steersight server answers at {url} ({error}). Start one with `make run`."
            ) from None
        return socket

    client = Client(await call())
    reader = asyncio.create_task(client.keep(call, patience))
    try:
        yield client
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        await client.leave()
