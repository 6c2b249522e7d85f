"""When connections send: in rounds of all that have something new, at once while the server has time.

A message costs the server about as much for one token as for five. While its event loop has time left, a
round follows every step. When the loop fills up, rounds come less often, so that more goes into each message.
One pace for all connections, because they share the loop; and all in one round, because that takes one timer
and no task, and wakes whoever reads on the other side of many of them once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

WINDOW_SECONDS = 0.05
"""How often the loop's load is looked at."""
FULL, FREE = 0.75, 0.55
"""Shares of its time that the loop works: above the one connections slow down, below the other speed up."""
LATE_SECONDS = 0.01
"""A round that comes so long after it was due says that the loop is full, too: other processes may have the
processor, and then it works little and is behind all the same."""
FIRST_SECONDS = 0.004
MOST_SECONDS = 1 / 30
"""Longer than two display frames is seen as a stutter."""


SENDING_SHARE = 1 / 3
"""Of its time the loop sends at most so much, or it has none left to take what it is to send and falls behind
for good. So rounds that take long come less often, and more goes into each message. One that alone took long
(another process had the processor, or garbage was collected) says nothing of the next: two in a row count."""

Send = Callable[[], None]


class Pace:
    """The rounds, and the interval between two of them."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, worked: Callable[[], float] = time.thread_time
    ) -> None:
        """
        Args:
            clock: seconds.
            worked: seconds that the loop's thread has computed.
        """
        self._clock = clock
        self._worked = worked
        self._then, self._done = clock(), worked()
        self._interval = 0.0
        self._due: dict[Send, None] = {}
        self._last = 0.0
        """When the last round began."""
        self._took = (0.0, 0.0)
        """How long the last two took."""
        self._due_at: float | None = None
        """When the next round was to be; None where none is planned."""
        self._late = False

    def soon(self, send: Send) -> None:
        """Call `send` in the next round, once, however often it is asked for. It must not raise."""
        self._due[send] = None
        if self._due_at is None:
            self._plan()

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        now, interval = loop.time(), self.interval()
        if (pause := min(self._took) / SENDING_SHARE) >= FIRST_SECONDS:
            interval = max(interval, pause)
        if interval and self._last + interval > now:
            self._due_at = self._last + interval
            loop.call_at(self._due_at, self._round)
        else:
            self._due_at = now
            loop.call_soon(self._round)

    def _round(self) -> None:
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        if self._due_at is not None and self._last - self._due_at > LATE_SECONDS:
            self._late = True
        self._due_at = None
        due, self._due = self._due, {}
        for send in due:
            send()
        self._took = (self._took[1], loop.time() - self._last)

    def interval(self) -> float:
        """Seconds from one round to the next; call it from the loop's thread."""
        now = self._clock()
        if (passed := now - self._then) >= WINDOW_SECONDS:
            done = self._worked()
            share = (done - self._done) / passed
            self._then, self._done = now, done
            if share > FULL or self._late:
                self._interval = min(MOST_SECONDS, max(FIRST_SECONDS, self._interval * 1.5))
            elif share < FREE:
                self._interval /= 1.25
                if self._interval < FIRST_SECONDS:
                    self._interval = 0.0
            self._late = False
        return self._interval
