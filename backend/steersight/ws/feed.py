"""One reader's place in a run's log: what it gets next. Pure: no sockets, no clock.

A feed has no queue of its own. What waits for a slow reader is the part of the log after its cursor, and
rows beyond a limit are then left out, said so, and sent when they are asked for (`ask`).
"""

from __future__ import annotations

from collections import deque

from ..protocol.codec import FrameError, WireMap
from ..protocol.messages import ErrorCode
from ..runs.log import RunLog

MAX_ASKED = 64
"""Ranges of rows that may wait to be sent again."""
ROWS_AT_ONCE = 256
"""Rows sent again between two looks at what is new."""


class Feed:
    """The events of one run for one reader."""

    def __init__(self, log: RunLog, after: int = 0) -> None:
        self.log = log
        self.cursor = after
        """The newest event that has been sent."""
        self._asked: deque[tuple[int, int]] = deque()  # [start, end) of positions

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send now."""
        return self.cursor == self.log.end and not self._asked

    def ask(self, start: int, count: int) -> None:
        """Send rows of these positions again. Raises FrameError where too much is asked for already."""
        if len(self._asked) >= MAX_ASKED:
            raise FrameError(
                ErrorCode.RATE_LIMITED,
                f"{MAX_ASKED} requests for rows of this run are waiting already. Wait for their rows first.",
                run=self.log.run,
            )
        self._asked.append((start, start + count))

    def take(self, most_bytes: int | None = None) -> list[WireMap]:
        """Frames of what is new, at most `most_bytes` of rows where that is given; when there is nothing new,
        of some rows that were asked for.
        """
        frames, self.cursor = self.log.frames_since(self.cursor, most_bytes)
        if not frames and self._asked:
            start, end = self._asked.popleft()
            until = min(end, start + ROWS_AT_ONCE, self.log.rows.end)
            if until < min(end, self.log.rows.end):
                self._asked.appendleft((until, end))
            frames = self.log.rows_at(start, until - start, self.cursor)
        return frames
