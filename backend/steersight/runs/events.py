"""What happens in a run, as its log keeps it: one record per kind of event, which nobody changes.

Tokens and rows come for every run and step, and stay. So theirs are slim: not frozen, which would take
three times as long to make, and without lists, which the garbage collector would have to look through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..protocol.messages import Prompt, RunError, Timing, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(slots=True)
class TokenEvent:
    position: int
    token: int
    text: str
    logprob: float | None
    rank: int | None


@dataclass(slots=True)
class RowsEvent:
    start: int
    revs: Sequence[int]
    values: NDArray[np.float16]
    """[rows, metrics, layers], transformed."""
    entropy: NDArray[np.float16] | None = None
    """[rows]"""

    @property
    def size(self) -> int:
        """Bytes on the wire, without the frame around them."""
        return int(self.values.nbytes) + (0 if self.entropy is None else int(self.entropy.nbytes))

    def between(self, start: int, end: int) -> RowsEvent | None:
        """The rows of positions [start, end), None where there are none."""
        first, last = max(start, self.start), min(end, self.start + len(self.revs))
        if first >= last:
            return None
        part = slice(first - self.start, last - self.start)
        return RowsEvent(
            first, self.revs[part], self.values[part], None if self.entropy is None else self.entropy[part]
        )


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


@dataclass(frozen=True)
class AppliedEvent:
    rev: int
    position: int


@dataclass(frozen=True)
class QueuedEvent:
    position: int


@dataclass(frozen=True)
class GapEvent:
    """Rows that nobody can have: they never came from the engine, or were let go."""

    start: int
    count: int


@dataclass(frozen=True)
class TrimmedEvent:
    """Guesses that were let go. The rows of their positions are a gap already."""


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


Event = (
    StartedEvent
    | QueuedEvent
    | TokenEvent
    | RowsEvent
    | LensEvent
    | AppliedEvent
    | GapEvent
    | TrimmedEvent
    | FinishedEvent
)
