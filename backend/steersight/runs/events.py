"""What happens in a run besides tokens and rows, as its log keeps it: one record per kind of event, which
nobody changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..protocol.messages import (
    LensOptions,
    MetricInfo,
    Origin,
    Prompt,
    RunError,
    Sampling,
    Timing,
    Usage,
    VectorSetting,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LensEvent:
    position: int
    layers: list[int]
    ids: NDArray[np.int32]
    """[layers, top]"""
    probabilities: NDArray[np.float16]
    """[layers, top]"""
    names: list[tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes on the wire, without the frame around them."""
        return int(self.ids.nbytes) + int(self.probabilities.nbytes)


STRENGTH_BYTES, SETTING_BYTES = 100, 600
"""What one strength and one setting weigh in memory, with the name of its vector."""


@dataclass(frozen=True)
class AlternativesEvent:
    position: int
    ids: NDArray[np.int32]
    """[top]"""
    logprobs: NDArray[np.float32]
    """[top]"""
    names: list[tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes on the wire, without the frame around them."""
        return int(self.ids.nbytes) + int(self.logprobs.nbytes)


@dataclass(frozen=True)
class AppliedEvent:
    rev: int
    position: int
    strengths: Mapping[str, float] | None = None
    """What the revision is, as its clients said it; None where that is not kept."""
    settings: Mapping[str, VectorSetting] | None = None


@dataclass(frozen=True)
class WatchedEvent:
    """What the run is watched with has changed: rows from a position on are computed with this."""

    position: int
    metrics: list[str]
    lens: LensOptions | None
    entropy: bool
    alternatives: int
    live: tuple[MetricInfo, ...] = ()
    """What those of `metrics` are that the run's own blocks compute."""


@dataclass(frozen=True)
class QueuedEvent:
    position: int


@dataclass(frozen=True)
class PartEvent:
    """A part of the reply begins at a token."""

    part: Literal["thought", "answer"]
    start: int


@dataclass(frozen=True)
class GapEvent:
    """Rows that never came from the engine: nobody can have them."""

    start: int
    count: int
    cached: bool = False
    """No pass of this run computed them: the engine had their positions in its cache of prefixes."""


@dataclass(frozen=True)
class FinishedEvent:
    reason: Literal["stop", "length", "cancelled", "error"]
    stop: str | None
    error: RunError | None
    usage: Usage
    timing: Timing


@dataclass(frozen=True)
class StartedEvent:
    prompt: Prompt
    model: str = ""
    """Id of the model that writes the run."""
    adapter: str | None = None
    strengths: Mapping[str, float] | None = None
    """Of revision 0."""
    settings: Mapping[str, VectorSetting] | None = None
    sampling: Sampling | None = None
    origin: Origin = "chat"
    edits: Sequence[str] = ()


Event = StartedEvent | QueuedEvent | PartEvent | WatchedEvent | AppliedEvent | GapEvent | FinishedEvent
"""Kept one by one. `LensEvent`s and `AlternativesEvent`s are kept apart (`beside.py`), because they weigh
something and can be let go."""
