"""How many and how often: what one address, and one connection, may take of a server that all share.

The numbers are far above what people and their scripts need, and far below what would be felt by others.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from ..protocol.close import REASONS, CloseCode
from ..protocol.codec import FrameError
from ..protocol.messages import ErrorCode
from .doors import Doors
from .rates import Bucket, Clock, PerAddress

Shown = Literal["known", "wrong", "too many"]

MAX_PER_ADDRESS = 256
"""Connections of one address at once."""
FRAMES_PER_SECOND, FRAMES_AT_ONCE = 200, 400
"""Of one connection, all kinds of frames together."""
STEERS_PER_SECOND, STEERS_AT_ONCE = 60, 120
"""Of one connection: a slider that is dragged sends at most one per frame of the display."""
GUESSES_PER_MINUTE = 10
"""Wrong tokens of one address."""


class Visitors:
    """Everybody who is here now, and what they have asked for lately."""

    def __init__(
        self, doors: Doors, max_connections: int, starts_per_minute: int, clock: Clock = time.monotonic
    ) -> None:
        self._doors = doors
        self._max = max_connections
        self._clock = clock
        self._here: Counter[str] = Counter()
        self._guesses = PerAddress(GUESSES_PER_MINUTE / 60, GUESSES_PER_MINUTE, clock)
        self._starts_per_minute = starts_per_minute
        self._starts = PerAddress(starts_per_minute / 60, starts_per_minute, clock)

    def full_for(self, address: str) -> tuple[int, str] | None:
        """Why this address gets no connection now, as an HTTP status and a sentence; None when it does."""
        if self._here.total() >= self._max:
            return 503, f"The server already has its {self._max} connections. Try again later."
        if self._here[address] >= MAX_PER_ADDRESS:
            return 429, f"Your address already has {MAX_PER_ADDRESS} connections. Close some first."
        if self._guesses.empty(address):
            return 429, TOO_MANY_GUESSES
        return None

    def enter(self, address: str) -> Visit:
        """Count one connection more. The caller has asked `full_for`, and will `leave`."""
        self._here[address] += 1
        return Visit(self, address, self._clock)

    def leave(self, visit: Visit) -> None:
        """Count one connection less."""
        self._here[visit.address] -= 1
        if not self._here[visit.address]:
            del self._here[visit.address]

    def show_token(self, address: str, token: bytes | None) -> Shown:
        """What comes of a token that somebody shows. After too many wrong ones not even the right one is
        looked at: whoever guesses would learn it."""
        return "known" if self._doors.token == b"" else self._guess(address, token, self._doors.knows)

    def show_code_token(self, address: str, token: bytes | None) -> Shown:
        """The same for the token of those who may run code; guesses at either count together."""
        return self._guess(address, token, self._doors.knows_code)

    def _guess(self, address: str, token: bytes | None, knows: Callable[[bytes], bool]) -> Shown:
        if self._guesses.empty(address):
            return "too many"
        if token is None:  # forgotten, and no guess
            return "wrong"
        if knows(token):
            return "known"
        self._guesses.take(address)
        return "wrong"

    def may_start(self, address: str, name: str, runs: int) -> None:
        """Count the runs of one frame. Raises FrameError."""
        if self._starts.take(address, runs):
            return
        most = self._starts_per_minute
        raise FrameError(
            ErrorCode.RATE_LIMITED,
            f"Your address has started {most} runs within a minute. Wait a little."
            if runs == 1
            else f"Your address may start {most} runs within a minute, and with these {runs} there would be "
            "more. Wait a little, or start fewer together.",
            id=name,
        )


TOO_MANY_GUESSES = "Your address has shown too many wrong tokens. Wait a minute and try again."


class Visit:
    """One connection: its name in the log, its address, and its own rates."""

    def __init__(self, visitors: Visitors, address: str, clock: Clock) -> None:
        self.id = secrets.token_hex(4)
        self.address = address
        self._visitors = visitors
        self._frames = Bucket(FRAMES_PER_SECOND, FRAMES_AT_ONCE, clock)
        self._steers = Bucket(STEERS_PER_SECOND, STEERS_AT_ONCE, clock)

    def may_enter(self, token: str | None) -> None:
        """Look at the token of `hello`. Raises FrameError."""
        shown = None if token is None else token.encode()
        match self._visitors.show_token(self.address, shown):
            case "wrong":
                raise FrameError(ErrorCode.UNAUTHORIZED, REASONS[CloseCode.UNAUTHORIZED], field="token")
            case "too many":
                raise FrameError(ErrorCode.RATE_LIMITED, TOO_MANY_GUESSES, field="token")

    def may_send(self) -> None:
        """Count one frame of any kind. Raises FrameError."""
        if not self._frames.take():
            raise FrameError(
                ErrorCode.RATE_LIMITED,
                f"More than {FRAMES_PER_SECOND} frames a second came, and this one was left out. "
                "Send fewer; the connection is closed when it goes on.",
            )

    def may_steer(self, run: str) -> None:
        """Count one `steer`. Raises FrameError."""
        if not self._steers.take():
            raise FrameError(
                ErrorCode.RATE_LIMITED,
                f"More than {STEERS_PER_SECOND} changes a second came, and this one was left out. "
                "Send the newest one again.",
                run=run,
            )

    def may_start(self, name: str, runs: int = 1) -> None:
        """Count the runs of one frame. Raises FrameError."""
        self._visitors.may_start(self.address, name, runs)
