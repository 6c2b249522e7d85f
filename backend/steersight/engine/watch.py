"""When an engine counts as hung, and how often one that was lost is started again: rules without an engine.

`Silence` is fed by the service's clock; `Restarts` is asked after every loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TRIES = 5
"""How often a lost engine is started again before the server gives up."""
FIRST_PAUSE_SECONDS = 1.0
HEALTHY_SECONDS = 300.0
"""An engine that has served this long has recovered: the next loss is a new story with all its tries."""
MOST_SECONDS_PER_TICK = 1.0
QUARTERS = 4


@dataclass
class Silence:
    """How long the engine has owed an answer and given no sign of life at all.

    Time counts only as the watcher's ticks see it pass, a second per tick at the most. A server that was
    itself stopped or busy for a minute has heard nothing in that minute either, and proves nothing by it.
    """

    limit: float
    """Seconds after which it counts as hung."""
    seconds: float = 0.0

    def heard(self) -> None:
        """A row, a token, an answer: anything that only a living engine sends."""
        self.seconds = 0.0

    def tick(self, elapsed: float, owed: bool) -> None:
        """So much time has passed; `owed` says whether anybody waits for the engine."""
        self.seconds = self.seconds + min(elapsed, MOST_SECONDS_PER_TICK) if owed else 0.0

    @property
    def quarter(self) -> int:
        """How many quarters of the limit are over; from 1 on it is worth a word, at 4 it is hung."""
        return min(QUARTERS, int(QUARTERS * self.seconds / self.limit))

    @property
    def hung(self) -> bool:
        """Whether the limit is reached."""
        return self.seconds >= self.limit


@dataclass
class Restarts:
    """Tries to bring an engine back, with growing pauses, until it has been healthy for a while."""

    tries: int = field(default=0)
    """Number of the newest one."""

    def lost(self, served_seconds: float) -> None:
        """The engine was lost after it had served so long."""
        if served_seconds >= HEALTHY_SECONDS:
            self.tries = 0

    def next_pause(self) -> float | None:
        """Count one more try; returns how long to wait before it, or None when there are none left."""
        if self.tries == TRIES:
            return None
        self.tries += 1
        pause: float = FIRST_PAUSE_SECONDS * 2 ** (self.tries - 1)
        return pause
