"""The asynchronous notebook client: one server, and runs with their numbers as arrays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from .. import client
from ..address import server_at
from ..client.asking import Messages
from ..client.dialing import PATIENCE_SECONDS, dialer
from ..protocol.messages import Finished, LensOptions, MetricInfo, ModelInfo, VectorInfo, VectorSetting
from .arrays import Rows
from .asking import Options, asked
from .reading import frame_of, rows_of

if TYPE_CHECKING:
    from .widget import Heatmap


class Opening:
    """A server that is being opened: `await` it, or `async with` it."""

    def __init__(self, url: str, token: str | None, patience: float) -> None:
        self._made = AsyncServer(url, token, patience)

    def __await__(self) -> Generator[Any, None, AsyncServer]:
        return self._made._enter().__await__()

    async def __aenter__(self) -> AsyncServer:
        return await self._made._enter()

    async def __aexit__(self, *_: object) -> None:
        await self._made.close()


def aopen(
    url: str = "127.0.0.1:8000", token: str | None = None, *, patience: float = PATIENCE_SECONDS
) -> Opening:
    """Open a server, for programs that have an event loop. `notebook.open` is the same without one.

    Args:
        url: in any form that `address.server_at` reads.
        token: what the server asks for, if it does; without one, that of STEERSIGHT_TOKEN.
        patience: seconds to try to come back when the line is lost.

    Raises: SteersightError when no server answers, refuses, or has an engine that failed; ValueError for what
        is no address.

    Example:
        async with notebook.aopen("127.0.0.1:8000") as server:
            run = await server.ask("Tell me about Paris.")
            async for piece in run:
                print(piece, end="")
    """
    return Opening(url, token, patience)


class AsyncServer:
    """One server. Runs that were asked for here end when it is closed."""

    def __init__(self, url: str, token: str | None, patience: float) -> None:
        self._address = server_at(url)
        self._token = token
        self._patience = patience
        self.dial = dialer(url, token)
        """Opens another connection to it, and says hello."""
        self.loop: asyncio.AbstractEventLoop
        """In which it lives."""
        self._stack = AsyncExitStack()
        self.client: client.Client
        """What this stands on, for everything that is not here."""

    async def _enter(self) -> Self:
        self.loop = asyncio.get_running_loop()
        opening = client.connect(self.url, self._token, patience=self._patience)
        self.client = await self._stack.enter_async_context(opening)
        try:
            await self.client.ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up. Runs that were asked for here end."""
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Its address over HTTP, as `model.trace(serve=...)` wants it."""
        return self._address.http

    @property
    def name(self) -> str:
        """What people call it."""
        return self.client.name

    @property
    def model(self) -> ModelInfo | None:
        """What it serves."""
        return self.client.model

    @property
    def metrics(self) -> dict[str, MetricInfo]:
        """What runs can be watched with, by id."""
        return dict(self.client.metrics)

    @property
    def vectors(self) -> dict[str, VectorInfo]:
        """What runs can be steered with, by id."""
        return dict(self.client.vectors)

    @property
    def traced(self) -> list[str]:
        """Names of the runs that NNsight's traces began, whoever sent them, the newest first; `run` takes up
        each. Told several times a second."""
        return [one.run for one in self.client.notebook_runs]

    async def ask(self, question: str | Messages, **options: Unpack[Options]) -> AsyncRun:
        """Ask; returns as soon as the server has admitted the run, which is then being written.

        Args:
            question: one, or a whole conversation (`role` and `content` of each message).
            options: see `Options`; `metrics` None means the default ones.

        Raises: SteersightError when the server refuses it; pydantic's ValidationError for what none takes.
        """
        messages, how = asked(question, options)
        return AsyncRun(self, await self.client.start(messages, **how))

    async def run(self, name: str) -> AsyncRun:
        """Any run of the server by its name (`run.id`, or `X-Steersight-Run` of an answer), whoever asked for
        it, from its beginning. Raises SteersightError when the server does not have it."""
        return AsyncRun(self, await self.client.watch(name))

    def __repr__(self) -> str:
        model = self.model.id if self.model else "no model yet"
        return (
            f"<Steersight at {self.url}: {model}, {len(self.vectors)} vectors, {len(self.metrics)} metrics>"
        )


class AsyncRun:
    """One run, while it is written and afterwards."""

    def __init__(self, server: AsyncServer, inner: client.Run) -> None:
        self.server = server
        self.inner = inner
        """The client's own, for everything that is not here."""

    @property
    def id(self) -> str:
        """Its name on the server."""
        return self.inner.id

    @property
    def text(self) -> str:
        """The reply so far: without special tokens, cut where a stop string ended it."""
        return self.inner.text

    @property
    def thought(self) -> str | None:
        """What the model thought before it answered; None where it has not."""
        return self.inner.thought

    @property
    def answer(self) -> str:
        """The reply so far without its thought."""
        return self.inner.answer

    @property
    def metrics(self) -> list[str]:
        """Ids of the metrics that its rows have."""
        return list(self.inner.metrics)

    @property
    def finished(self) -> Finished | None:
        """How it ended; None while it is written."""
        return self.inner.finished

    @property
    def revisions(self) -> dict[int, client.Revision]:
        """Each state of its steering that a row was computed with, whoever steered."""
        return dict(self.inner.revisions)

    async def steer(
        self, strengths: Mapping[str, float], settings: Mapping[str, VectorSetting] | None = None
    ) -> int:
        """Replace all strengths; what is not named goes to 0. Returns the revision, for `applied`."""
        return await self.inner.steer(strengths, settings)

    async def applied(self, revision: int) -> int:
        """Wait until a row was computed with this revision; returns its position. Raises SteersightError when
        the server has refused it, or the run ends before."""
        return await self.inner.applied(revision)

    async def watch(
        self,
        metrics: Sequence[str] | None = None,
        *,
        lens: LensOptions | None = None,
        entropy: bool = False,
        alternatives: int = 0,
    ) -> int:
        """Watch it with other numbers from now on; returns the position of the first row that has them."""
        wanted = None if metrics is None else list(metrics)
        return await self.inner.watch(metrics=wanted, lens=lens, entropy=entropy, alternatives=alternatives)

    async def stop(self) -> None:
        """Ask the server to end it; `wait` returns when it has."""
        await self.inner.stop()

    async def wait(self) -> Self:
        """Wait for its end. Raises SteersightError when no more of it comes."""
        await self.inner.wait()
        return self

    def __aiter__(self) -> AsyncIterator[str]:
        return self.inner.texts()

    def rows(self, metric: str | None = None) -> Rows:
        """One metric over positions and layers, as far as it has come; NaN where there is no row.

        Args:
            metric: its id; may be left out where the run has one only.
        """
        return rows_of(self.inner, metric)

    def frame(self, metrics: Sequence[str] | None = None) -> Any:
        """All rows so far as a pandas DataFrame: position, token, text, part (prompt, thought or answer),
        revision, layer, metric, value; one line for each number."""
        return frame_of(self.inner, metrics)

    async def save(self, path: str | Path) -> None:
        """Write a recording, which the page opens: `docs/recordings.md`."""
        await self.inner.save(path)

    def show(self) -> Heatmap:
        """The live map with its sliders, as a widget; the last expression of a cell shows itself.

        Raises ImportError with a sentence where anywidget is missing, SteersightError where the front end has
        not been built.
        """
        from .widget import Heatmap

        return Heatmap(self)

    def __repr__(self) -> str:
        return described(self.inner)


def described(run: client.Run) -> str:
    """One line that says which run it is and how it stands."""
    how = run.finished.reason if run.finished else "being written"
    return f"<run {run.id}, {how}: {len(run.prompt.ids)} + {len(run.ids)} tokens, {run.text[:60]!r}>"
