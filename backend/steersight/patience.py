"""Waiting for somebody else, without taking one's own sleep for his.

`asyncio.timeout` counts wall time. When the event loop stands still, for a large allocation, a suspended
machine, a debugger, it finds its deadline passed and what it waited for still unread, and gives up on a peer
that did nothing wrong. `Patience` is a timeout that counts only the time in which this process was awake: it
looks at the clock at every tick, and a tick that came late counts as one tick.

    async with Patience(20.0) as patience:   # raises TimeoutError
        await something
    patience.waited                          # seconds that something really took
"""

from __future__ import annotations

import asyncio
from types import TracebackType

TICK_SECONDS = 0.1


class Patience:
    """An async context that raises TimeoutError after so many seconds of waiting while awake."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tick_seconds = min(TICK_SECONDS, seconds / 4)
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._then = self._loop.time()
        self._next: asyncio.TimerHandle | None = None
        self.waited = 0.0
        """Seconds so far in which this process was awake."""

    async def __aenter__(self) -> Patience:
        await self._timeout.__aenter__()
        self._then = self._loop.time()
        self._next = self._loop.call_later(self._tick_seconds, self._tick)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next is not None:
            self._next.cancel()
        self._count()
        await self._timeout.__aexit__(kind, error, trace)

    def _tick(self) -> None:
        self._count()
        if self.waited < self._seconds:
            self._next = self._loop.call_later(self._tick_seconds, self._tick)
        else:
            self._timeout.reschedule(self._loop.time())

    def _count(self) -> None:
        now = self._loop.time()
        # Twice a tick: timers of a busy loop come a little late, and that is no sleep.
        self.waited += min(now - self._then, 2 * self._tick_seconds)
        self._then = now
