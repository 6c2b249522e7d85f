"""A state of the server that all clients are told of, as a frame: once for however many changes of a moment.

The frame is packed once for all connections, and anew when the state has changed. A change is told at once,
and the next no sooner than a pause later: there may be hundreds of them in a second, and many may listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..protocol import codec
from ..protocol.messages import Frame

PAUSE_SECONDS = 0.25
"""From one telling to the next."""


class Telling:
    """One state. Not thread-safe: all methods belong to one event loop."""

    def __init__(self, make: Callable[[], Frame]) -> None:
        """`make` makes the frame of what is so now."""
        self._make = make
        self._listeners: list[Callable[[], None]] = []
        self._frame: bytes | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._again = False
        """Whether something has changed since it was told last."""
        self._closed = False

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when `frame` is another; returns a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def frame(self) -> bytes:
        """What there is to tell, packed."""
        if self._frame is None:
            self._frame = codec.encode(self._make())
        return self._frame

    def changed(self) -> None:
        """The state is another."""
        self._frame = None
        if self._closed:
            return
        if self._pause is not None:
            self._again = True
            return
        self._pause = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._pause_over)
        for listener in list(self._listeners):
            listener()

    def close(self) -> None:
        """Tell nothing any more."""
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()

    def _pause_over(self) -> None:
        self._pause = None
        if self._again:
            self._again = False
            self.changed()
