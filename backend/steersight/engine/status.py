"""Where an engine is in its life, in words for the wire and for people."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class EnginePhase(StrEnum):
    """Where the engine is in its life; the words are those of the wire."""

    LOADING = "loading"
    """It is being started: for the first time, again because it was lost, or with another model."""
    READY = "ready"
    """It takes runs."""
    DRAINING = "draining"
    """Its server is about to end. It takes no more runs, those under way go on; it is not started again."""
    FAILED = "failed"
    """It did not start, or was lost so often that nobody tries any more."""
    STOPPED = "stopped"
    """It was told to end, which is the last word."""


NEXT_PHASES: dict[EnginePhase, frozenset[EnginePhase]] = {
    EnginePhase.LOADING: frozenset(
        {EnginePhase.READY, EnginePhase.DRAINING, EnginePhase.FAILED, EnginePhase.STOPPED}
    ),
    EnginePhase.READY: frozenset(
        {EnginePhase.LOADING, EnginePhase.DRAINING, EnginePhase.FAILED, EnginePhase.STOPPED}
    ),
    EnginePhase.DRAINING: frozenset({EnginePhase.STOPPED}),
    # Nobody tries it again, but another model may be tried.
    EnginePhase.FAILED: frozenset({EnginePhase.LOADING, EnginePhase.STOPPED}),
    EnginePhase.STOPPED: frozenset(),
}


@dataclass(frozen=True)
class Status:
    """What everybody may know of the engine: `protocol.EngineStatus`, field by field."""

    state: EnginePhase = EnginePhase.LOADING
    stage: str = "Starting"
    """A sentence for people: what is happening now, or why it failed."""
    progress: float = 0.0
    """Share of the expected loading time, 0 to 1."""

    @property
    def ready(self) -> bool:
        """Whether it takes runs."""
        return self.state is EnginePhase.READY

    def become(self, phase: EnginePhase, stage: str) -> Status:
        """The status after a step into another phase. Raises RuntimeError where `NEXT_PHASES` has none."""
        if phase not in NEXT_PHASES[self.state]:
            raise RuntimeError(f"An engine cannot go from {self.state} to {phase}.")
        progress = {EnginePhase.READY: 1.0, EnginePhase.DRAINING: self.progress}.get(phase, 0.0)
        return Status(phase, stage, progress)

    def say(self, stage: str, progress: float | None = None) -> Status:
        """The status with another sentence in the same phase."""
        return replace(self, stage=stage, progress=self.progress if progress is None else progress)
