"""The starts of one connection that wait to be admitted, in the order in which they came.

To make a prompt into tokens takes a while where it is long, and the receive loop must not wait for it: a
`steer` or `stop` behind ten long starts would come too late. The line is short, so that what a client has
sent and not been answered weighs little.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from ..protocol.codec import FrameError
from ..protocol.messages import ErrorCode, Start, StartTogether

Asked = Start | StartTogether

MAX_PENDING = 16
"""Starts that wait for their answer, the one that is being looked at among them."""


def runs_of(frame: Asked) -> int:
    """How many runs a frame asks for."""
    return len(frame.starts) if isinstance(frame, StartTogether) else 1


class Admissions:
    """The line, and the loop that goes through it."""

    def __init__(
        self, admit: Callable[[Asked], Awaitable[None]], refuse: Callable[[FrameError, Asked], None]
    ) -> None:
        """`admit` takes one frame or raises FrameError, and `refuse` tells the client of that."""
        self._admit = admit
        self._refuse = refuse
        self._line: deque[Asked] = deque()
        self._more = asyncio.Event()

    @property
    def pending(self) -> int:
        """How many have not been answered."""
        return sum(map(runs_of, self._line))

    def add(self, frame: Asked) -> None:
        """Put one more at the end. Raises FrameError where the line is full."""
        if self.pending + runs_of(frame) > MAX_PENDING:
            raise FrameError(
                ErrorCode.BUSY,
                f"This connection waits for the answers to {self.pending} starts already, and {MAX_PENDING} "
                "is all that it may. Wait for some of them.",
                id=frame.id,
            )
        self._line.append(frame)
        self._more.set()

    async def go_on(self) -> None:
        """Admit one after another, until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._line:
                try:
                    await self._admit(self._line[0])
                except FrameError as error:
                    self._refuse(error, self._line[0])
                finally:
                    self._line.popleft()
