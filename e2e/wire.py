"""The wire beside the page: what the page's own socket carried, and a second client that has no page.

Both give the same kind of numbers, so that a story can hold what a person sees against what was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, WebSocket
from steersight.client import connect, to_display
from steersight.protocol import codec
from steersight.protocol.messages import (
    Engine,
    Finished,
    Frame,
    Part,
    Rows,
    Sampling,
    Start,
    Started,
    Tokens,
    VectorInfo,
    VectorSetting,
    Welcome,
)

T = TypeVar("T")


class Wire:
    """Every frame of a page's sockets, in order. Make it before the page is opened."""

    def __init__(self, page: Page) -> None:
        self.sent: list[Frame] = []
        self.received: list[Frame] = []
        page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda data: self.sent.append(codec.decode_client(data)))
        socket.on("framereceived", lambda data: self.received.append(codec.decode_server(data)))

    def last_start(self) -> Start:
        """The newest `start` that the page sent."""
        return [frame for frame in self.sent if isinstance(frame, Start)][-1]

    def last_started(self) -> Started:
        """The newest run that the server admitted."""
        return [frame for frame in self.received if isinstance(frame, Started)][-1]

    def last_finished(self) -> Finished:
        """The newest end of a run."""
        return [frame for frame in self.received if isinstance(frame, Finished)][-1]

    def reply_ids(self) -> list[int]:
        """Ids of the newest run's reply."""
        return [token for token, _ in self._reply()]

    def layers(self) -> int:
        """Layers of the served model, as the server says."""
        model = self._news().model
        assert model is not None
        layers: int = model.layers
        return layers

    def _news(self) -> Welcome | Engine:
        """What the server last said of itself."""
        return [frame for frame in self.received if isinstance(frame, Welcome | Engine)][-1]

    def parts(self) -> dict[str, int]:
        """Where the parts of the newest run's reply begin, as the server has said."""
        run = self.last_started().run
        return {
            frame.part: frame.start for frame in self.received if isinstance(frame, Part) and frame.run == run
        }

    def vector_named(self, label: str) -> VectorInfo:
        """The vector with this label, as the server last told of it."""
        (vector,) = [info for info in self._news().vectors if info.label == label]
        return vector

    def vector_layers(self, vector: str) -> list[int]:
        """The layers at which a vector acts."""
        (layers,) = [info.layers for info in self._news().vectors if info.id == vector]
        return list(layers)

    def token_after(self, position: int) -> str:
        """The token of the newest reply that was written after a position, as the page shows it."""
        _, text = self._reply()[position + 1 - len(self.last_started().prompt.ids)]
        return text.replace("\n", "\u23ce").replace("\t", "\u21e5").replace(" ", "\u00b7")

    def _reply(self) -> list[tuple[int, str]]:
        """Id and text of each token of the newest reply. Frames may come twice, after a lost line."""
        run = self.last_started().run
        found: dict[int, tuple[int, str]] = {}
        for frame in self.received:
            if isinstance(frame, Tokens) and frame.run == run:
                found |= dict(enumerate(zip(frame.ids, frame.texts, strict=True), start=frame.start))
        return [found[position] for position in sorted(found)]

    def values(self, metric: str) -> dict[int, NDArray[np.float32]]:
        """Position -> the metric's value per layer, in its own unit, of the newest run."""
        run = self.last_started().run
        transforms = {info.id: info.transform for info in self._news().metrics}
        found: dict[int, NDArray[np.float32]] = {}
        for frame in self.received:
            if isinstance(frame, Rows) and frame.run == run:
                block = np.frombuffer(frame.data, dtype="<f2")
                block = block.reshape(frame.count, len(frame.metrics), frame.layers)
                shown = to_display(block, [transforms[name] for name in frame.metrics])
                for offset in range(frame.count):
                    found[frame.start + offset] = shown[offset, frame.metrics.index(metric)]
        return found


@dataclass(frozen=True)
class Reply:
    """What the second client got."""

    text: str
    ids: list[int]
    pieces: list[str]
    rows: NDArray[np.float32]
    """[tokens of prompt and reply, metrics, layers]; NaN where there is no row."""
    metrics: list[str] = field(default_factory=list)


def ask(
    socket_url: str,
    text: str,
    *,
    tokens: int = 24,
    strengths: Mapping[str, float] | None = None,
    settings: Mapping[str, VectorSetting] | None = None,
) -> Reply:
    """Ask one question with the Python client, greedily, on a connection of its own."""

    sampling = Sampling(temperature=0.0, max_tokens=tokens)

    async def conversation() -> Reply:
        async with connect(socket_url) as client:
            await client.ready()
            messages = [{"role": "user", "content": text}]
            run = await client.start(messages, sampling=sampling, strengths=strengths, settings=settings)
            await run.wait()
            return Reply(run.text, run.ids, run.pieces, run.rows(), list(run.metrics))

    return in_a_thread(conversation())


def in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; Playwright's own loop occupies the main thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()
