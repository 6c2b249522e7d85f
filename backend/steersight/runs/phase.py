"""Where a run is in its life, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from ..protocol.messages import ErrorCode, RunError

Reason = Literal["stop", "length", "cancelled", "error"]


class RunPhase(Enum):
    """Where a run is in its life."""

    WAITING = "waiting"
    """Admitted, and in the line for a place in the engine."""
    WRITING = "writing"
    """It has its place, and a task that generates."""
    ENDING = "ending"
    """It was told to end; the engine has not let go of it yet, or its task has not begun yet."""
    FINISHED = "finished"
    """`finished` is in its log, and its place has been given back."""


NEXT_PHASES: dict[RunPhase, frozenset[RunPhase]] = {
    RunPhase.WAITING: frozenset({RunPhase.WRITING, RunPhase.FINISHED}),
    RunPhase.WRITING: frozenset({RunPhase.ENDING, RunPhase.FINISHED}),
    RunPhase.ENDING: frozenset({RunPhase.FINISHED}),
    RunPhase.FINISHED: frozenset(),
}


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    reason: Reason
    stop: str | None = None
    error: RunError | None = None


def failure(code: ErrorCode, sentence: str) -> Ending:
    """The end of a run that failed, with the sentence for its client."""
    return Ending("error", error=RunError(code=code, message=sentence))
