"""What a run is watched with: decided from a `start` or a `watch` frame, told to the engine, and written by.

The engine numbers nothing by itself: a run's first is 0, each `watch` frame is the next, and what comes from
the worker says by which number it was computed. So whoever writes rows knows what their columns are, however
long a change was on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.request import Wants
from ..metrics import LENS_METRICS
from ..metrics.logit_lens import lens_layers
from ..protocol.codec import FrameError
from ..protocol.messages import ErrorCode, LensOptions
from .events import WatchedEvent

if TYPE_CHECKING:
    from ..metrics import Registry
    from ..protocol.messages import Start, Watch
    from ..vectors.store import SteeringVector
    from .columns import Columns

MAX_WATCHES = 1000
"""Times that what a run is watched with may change: its log keeps each."""


@dataclass(frozen=True)
class Watching:
    """What a run is watched with, from one `watch` to the next."""

    metrics: list[str]
    """Ids, in the order in which rows hold them, those of the logit lens among them."""
    columns: Columns
    """What each is known by where rows are kept for other runs."""
    lens: LensOptions | None = None
    entropy: bool = False
    alternatives: int = 0
    number: int = 0

    @property
    def numbers(self) -> bool:
        """Whether its rows have any."""
        return bool(self.metrics or self.entropy)

    def lens_layers(self, layers: int) -> list[int]:
        """Those that the logit lens is to read, of so many."""
        return lens_layers(layers, self.lens.stride) if self.lens else []

    def wants(self) -> Wants:
        """The same for the engine."""
        return Wants(
            metrics=tuple(self.metrics),
            entropy=self.entropy,
            lens_stride=self.lens.stride if self.lens else 0,
            lens_top=self.lens.top if self.lens else 0,
            alternatives=self.alternatives,
        )

    def event(self, position: int) -> WatchedEvent:
        """Rows of it begin at a position."""
        return WatchedEvent(position, self.metrics, self.lens, self.entropy, self.alternatives)


def decide(
    frame: Start | Watch, registry: Registry, vectors: Mapping[str, SteeringVector], number: int = 0
) -> Watching:
    """What a frame asks for. Raises FrameError for what nobody can compute."""
    asked = registry.defaults() if frame.metrics is None else frame.metrics
    for name in asked:
        if name not in registry:
            known = ", ".join(metric.id for metric in registry.all())
            raise FrameError(
                ErrorCode.UNKNOWN_METRIC,
                f"There is no metric {name!r}; there are {known}.",
                field="metrics",
            )
        if name in LENS_METRICS and frame.lens is None:
            raise FrameError(
                ErrorCode.INVALID,
                f"{name!r} needs the logit lens. Give `lens` with a stride, or leave it out.",
                field="lens",
            )
    metrics = registry.ordered([*asked, *(LENS_METRICS if frame.lens else ())])
    columns = _columns(metrics, registry, vectors)
    return Watching(metrics, columns, frame.lens, frame.entropy, frame.alternatives, number)


def _columns(
    metrics: list[str], registry: Registry, vectors: Mapping[str, SteeringVector]
) -> list[str | None]:
    """What the rows of these metrics are known by, in a prompt that others have had too.

    A projection is known by the vector that its name means now. The logit lens reads no prompt.
    """
    return [
        None
        if name in LENS_METRICS
        else f"{name}#{vectors[name.partition(':')[2]].serial}"
        if registry[name].family == "projection"
        else name
        for name in metrics
    ]
