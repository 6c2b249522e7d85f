"""What the logs of live runs may weigh together. Pure: no sockets, no engine, no clock.

A finished run's log is forgotten whole. A live one goes on, so only its oldest rows can go: those of the
heaviest logs first, down to one common weight, so that a run with many metrics over a long context costs
nobody else the rows of a short reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .log import RunLog

SLACK = 64
"""All logs are weighed again when so small a part of the budget has been added."""
TARGET = 7 / 8
"""Of the budget, what is left after trimming: to trim at every row would cost more than it frees."""


class RowBudget:
    """Keeps live logs within a number of bytes."""

    def __init__(
        self, most_bytes: int, logs: Callable[[], Iterable[RunLog]], trimmed: Callable[[int], None]
    ) -> None:
        """
        Args:
            most_bytes: of rows and guesses of all live logs together.
            logs: all live logs.
            trimmed: told how many rows were let go.
        """
        self._most = most_bytes
        self._logs = logs
        self._trimmed = trimmed
        self._added = 0

    def grew(self, size: int) -> None:
        """A live log has grown by so many bytes. The logs weigh at most the budget and a 64th of it, and the
        event that is being added."""
        self._added += size
        if self._added * SLACK < self._most:
            return
        self._added = 0
        logs = list(self._logs())
        if sum(log.size for log in logs) <= self._most:
            return
        level = common_level([log.size for log in logs], int(self._most * TARGET))
        gone = sum(log.trim(level) for log in logs)
        if gone:
            self._trimmed(gone)


def common_level(sizes: list[int], most: int) -> int:
    """The largest L for which the sizes, each cut to L, come to at most `most`.

    Where they do uncut, it is the largest size.
    """
    left = most
    for index, size in enumerate(ascending := sorted(sizes)):
        share = left // (len(ascending) - index)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)
