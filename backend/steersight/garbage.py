"""When Python's garbage collector looks through everything: not while somebody's tokens are on their way.

A full collection visits every object there is, and the event loop stands still for it: half a second
and more, seen as a stutter by everybody. What loading makes stays for good, so it is set aside
(`set_aside`). What runs leave is freed by reference counts, mostly; full collections find the rest while
nobody waits (`Sweeper`).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

YOUNG, MIDDLE = 700, 10
"""Python's own thresholds for young objects, whose collections take less than a millisecond."""
NEVER = 1_000_000_000
LOOK_SECONDS = 5.0
OVERDUE_SECONDS = 1800.0
"""A server that is never idle is swept all the same, so often."""


def set_aside() -> None:
    """Let no later collection look at what is there now; full ones happen when `Sweeper` says so."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, NEVER)


class Sweeper:
    """Collects garbage in the pauses."""

    def __init__(self, is_idle: Callable[[], bool], sweep: Callable[[], object] = gc.collect) -> None:
        """
        Args:
            is_idle: whether nobody would notice.
            sweep: what is to be done then.
        """
        self._is_idle = is_idle
        self._sweep = sweep
        self._busy_since_last = False
        self._waited = 0.0

    def look(self, seconds: float) -> None:
        """Sweep, if something has been done since the last time and nobody would notice, or it is overdue.

        Args:
            seconds: since it looked last.
        """
        self._waited += seconds
        idle = self._is_idle()
        if not idle:
            self._busy_since_last = True
        if self._busy_since_last and (idle or self._waited >= OVERDUE_SECONDS):
            self._sweep()
            self._busy_since_last = not idle
            self._waited = 0.0

    async def run(self) -> None:
        """Look every few seconds, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look(LOOK_SECONDS)
