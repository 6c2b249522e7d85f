"""The synchronous notebook client: the asynchronous one in a loop of its own, each call of which waits.

What is read of a run is read in that loop, so that no frame changes it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from .. import client
from ..client.asking import Messages
from ..client.dialing import PATIENCE_SECONDS
from ..protocol.messages import Finished, LensOptions, MetricInfo, ModelInfo, VectorInfo, VectorSetting
from .arrays import Rows
from .asking import Options
from .asynchronous import AsyncRun, AsyncServer, aopen
from .loop import Loop, shared

if TYPE_CHECKING:
    from .widget import Heatmap

T = TypeVar("T")


def open(  # noqa: A001 - read as notebook.open
    url: str = "127.0.0.1:8000", token: str | None = None, *, patience: float = PATIENCE_SECONDS
) -> Server:
    """Open a server; waits until its engine is ready.

    Args:
        url: in any form that `address.server_at` reads.
        token: what the server asks for, if it does; without one, that of STEERSIGHT_TOKEN.
        patience: seconds to try to come back when the line is lost.

    Raises: SteersightError when no server answers, refuses, or has an engine that failed; ValueError for what
        is no address.

    Example:
        with notebook.open("127.0.0.1:8000") as server:
            for piece in server.ask("Tell me about Paris."):
                print(piece, end="")
    """
    loop = shared()

    async def opened() -> AsyncServer:
        return await aopen(url, token, patience=patience)

    return Server(loop, loop.wait(opened()))


class Server:
    """One server. Runs that were asked for here end when it is closed."""

    def __init__(self, loop: Loop, there: AsyncServer) -> None:
        self._loop = loop
        self.there = there
        """The asynchronous one, which lives in another thread's loop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Runs that were asked for here end."""
        self._loop.wait(self.there.close())

    @property
    def url(self) -> str:
        """Its address over HTTP, as `model.trace(serve=...)` wants it."""
        return self.there.url

    @property
    def name(self) -> str:
        """What people call it."""
        return self.there.name

    @property
    def model(self) -> ModelInfo | None:
        """What it serves."""
        return self.there.model

    @property
    def metrics(self) -> dict[str, MetricInfo]:
        """What runs can be watched with, by id."""
        return self._loop.call(lambda: self.there.metrics)

    @property
    def vectors(self) -> dict[str, VectorInfo]:
        """What runs can be steered with, by id."""
        return self._loop.call(lambda: self.there.vectors)

    @property
    def traced(self) -> list[str]:
        """Names of the runs that NNsight's traces began, whoever sent them, the newest first; `run` takes up
        each. Told several times a second."""
        return self._loop.call(lambda: self.there.traced)

    def ask(self, question: str | Messages, **options: Unpack[Options]) -> Run:
        """Ask; returns as soon as the server has admitted the run, which is then being written.

        Args:
            question: one, or a whole conversation (`role` and `content` of each message).
            options: see `Options`; `metrics` None means the default ones.

        Raises: SteersightError when the server refuses it; pydantic's ValidationError for what none takes.
        """
        return Run(self, self._loop, self._loop.wait(self.there.ask(question, **options)))

    def run(self, name: str) -> Run:
        """Any run of the server by its name (`run.id`, or `X-Steersight-Run` of an answer), whoever asked for
        it, from its beginning. Raises SteersightError when the server does not have it."""
        return Run(self, self._loop, self._loop.wait(self.there.run(name)))

    def __repr__(self) -> str:
        return self._loop.call(lambda: repr(self.there))


class Run:
    """One run, while it is written and afterwards. Iterating gives the reply in pieces as it is written."""

    def __init__(self, server: Server, loop: Loop, there: AsyncRun) -> None:
        self.server = server
        self._loop = loop
        self.there = there
        """The asynchronous one, which lives in another thread's loop."""

    def _read(self, what: Callable[[AsyncRun], T]) -> T:
        return self._loop.call(lambda: what(self.there))

    @property
    def id(self) -> str:
        """Its name on the server."""
        return self.there.id

    @property
    def text(self) -> str:
        """The reply so far: without special tokens, cut where a stop string ended it."""
        return self._read(lambda run: run.text)

    @property
    def thought(self) -> str | None:
        """What the model thought before it answered; None where it has not."""
        return self._read(lambda run: run.thought)

    @property
    def answer(self) -> str:
        """The reply so far without its thought."""
        return self._read(lambda run: run.answer)

    @property
    def metrics(self) -> list[str]:
        """Ids of the metrics that its rows have."""
        return self._read(lambda run: run.metrics)

    @property
    def finished(self) -> Finished | None:
        """How it ended; None while it is written."""
        return self.there.finished

    @property
    def revisions(self) -> dict[int, client.Revision]:
        """Each state of its steering that a row was computed with, whoever steered."""
        return self._read(lambda run: run.revisions)

    def steer(
        self, strengths: Mapping[str, float], settings: Mapping[str, VectorSetting] | None = None
    ) -> int:
        """Replace all strengths; what is not named goes to 0. Returns the revision, for `applied`."""
        return self._loop.wait(self.there.steer(strengths, settings))

    def applied(self, revision: int) -> int:
        """Wait until a row was computed with this revision; returns its position. Raises SteersightError when
        the server has refused it, or the run ends before."""
        return self._loop.wait(self.there.applied(revision))

    def watch(
        self,
        metrics: Sequence[str] | None = None,
        *,
        lens: LensOptions | None = None,
        entropy: bool = False,
        alternatives: int = 0,
    ) -> int:
        """Watch it with other numbers from now on; returns the position of the first row that has them."""
        return self._loop.wait(
            self.there.watch(metrics, lens=lens, entropy=entropy, alternatives=alternatives)
        )

    def stop(self) -> None:
        """Ask the server to end it; `wait` returns when it has."""
        self._loop.wait(self.there.stop())

    def wait(self) -> Self:
        """Wait for its end. Ctrl+C ends the waiting and not the run. Raises SteersightError when no more of
        it comes."""
        self._loop.wait(self.there.wait())
        return self

    def __iter__(self) -> Iterator[str]:
        pieces = aiter(self.there)

        async def following() -> str | None:
            return await anext(pieces, None)

        while (piece := self._loop.wait(following())) is not None:
            yield piece

    def rows(self, metric: str | None = None) -> Rows:
        """One metric over positions and layers, as far as it has come; NaN where there is no row.

        Args:
            metric: its id; may be left out where the run has one only.
        """
        return self._read(lambda run: run.rows(metric))

    def frame(self, metrics: Sequence[str] | None = None) -> Any:
        """All rows so far as a pandas DataFrame: position, token, text, part (prompt, thought or answer),
        revision, layer, metric, value; one line for each number."""
        return self._read(lambda run: run.frame(metrics))

    def save(self, path: str | Path) -> None:
        """Write a recording, which the page opens: `docs/recordings.md`."""
        self._loop.wait(self.there.save(path))

    def show(self) -> Heatmap:
        """The live map with its sliders, as a widget; the last expression of a cell shows itself.

        Raises ImportError with a sentence where anywidget is missing, SteersightError where the front end has
        not been built.
        """
        from .widget import Heatmap

        return Heatmap(self)

    def __repr__(self) -> str:
        return self._read(repr)
