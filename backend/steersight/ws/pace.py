"""How long a connection collects before it sends: not at all while the server has time, longer when not.

A message costs the server about as much for one token as for five. While its event loop has time left, every
step is sent the moment it is here. When the loop fills up, each connection waits a little between two
messages, so that more goes into each. One pace for all connections, because they share the loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_SECONDS = 0.05
"""How often the loop's load is looked at."""
FULL, FREE = 0.75, 0.55
"""Shares of its time that the loop works: above the one connections slow down, below the other speed up."""
FIRST_SECONDS = 0.004
MOST_SECONDS = 1 / 30
"""Longer than two display frames is seen as a stutter."""


class Pace:
    """The interval between two messages of tokens and rows to one client."""

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

    def interval(self) -> float:
        """Seconds that a connection waits from one message to the next; call it from the loop's thread."""
        now = self._clock()
        if (passed := now - self._then) >= WINDOW_SECONDS:
            done = self._worked()
            share = (done - self._done) / passed
            self._then, self._done = now, done
            if share > FULL:
                self._interval = min(MOST_SECONDS, max(FIRST_SECONDS, self._interval * 1.5))
            elif share < FREE:
                self._interval /= 1.25
                if self._interval < FIRST_SECONDS:
                    self._interval = 0.0
        return self._interval
