"""Places in the engine: who computes now, and who is next. Pure: no engine, no clock.

A `Place` is one of the engine's slots, and room in its KV cache for all tokens that its holder may come to
need. Whatever is computed takes one, the runs of clients and the requests that a vector is built from alike.
All stand in one line: places are given in the order of asking, and nobody overtakes. Who asks together
begins together: such a group waits until there are places for all of it, and so does whoever comes behind it.
Nobody who holds a place waits for another, so the places in use come back and the line moves.

A place is a lease that is given back on every path. A run takes one for its whole life and gives it back
where it ends (`Place.give_back`, which may be called at any time and more than once); a build holds one in a
context:

    async with places.place(tokens):
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from ..protocol.codec import FrameError
from ..protocol.messages import ErrorCode


class Holder(Protocol):
    """Who asks for a place, and is told of it. Each call may give the place back at once."""

    def begin(self) -> None:
        """The place is there."""

    def wait_at(self, position: int) -> None:
        """It is to wait; 1 is the next to begin, alone or with those that it asked together with. Told at
        every change of the line."""

    def refuse(self, why: FrameError) -> None:
        """There will be no place."""


class Place:
    """One slot and its tokens: waited for, then held, then given back."""

    def __init__(self, places: Places, tokens: int, holder: Holder) -> None:
        self.tokens = tokens
        self.holder = holder
        self._places = places

    def give_back(self) -> None:
        """Leave the line, or the engine; idempotent. Whoever is next moves up."""
        self._places.take_back(self)


class Places:
    """All places of one engine, and the line before them."""

    def __init__(
        self, most: Callable[[], int], capacity: Callable[[], int | None], is_open: Callable[[], bool]
    ) -> None:
        """
        Args:
            most: how many slots the engine has.
            capacity: how many tokens its KV cache holds; None where that is not known.
            is_open: whether anybody is let in now. Call `fill` when this may have changed.
        """
        self._most = most
        self._capacity = capacity
        self._is_open = is_open
        self._held: set[Place] = set()
        self._line: deque[list[Place]] = deque()
        """Those who wait, as they asked; nobody waits in an empty group."""
        self._filling = self._changed = False
        self.tokens = 0
        """Tokens of the KV cache that are promised to those who hold a place."""

    @property
    def held(self) -> int:
        """How many places are taken."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(map(len, self._line))

    def check(self, tokens: Sequence[int]) -> None:
        """Raise FrameError where there can never be room for so many at once, or so many tokens: whoever asks
        for that would wait for ever, and all others behind him."""
        capacity, most, count = self._capacity(), self._most(), len(tokens)
        if count > max(1, most):
            raise FrameError(
                ErrorCode.INVALID,
                f"{count} replies are to begin together, and the engine computes at most {most} at once. "
                "Start fewer together.",
                field="starts",
            )
        if capacity is None or sum(tokens) <= capacity:
            return
        if count == 1:
            raise FrameError(
                ErrorCode.PROMPT_TOO_LONG,
                f"Prompt and reply may come to {tokens[0]} tokens, and the engine's KV cache holds "
                f"{capacity}. Ask for fewer tokens or shorten the conversation.",
                field="sampling.max_tokens",
            )
        raise FrameError(
            ErrorCode.PROMPT_TOO_LONG,
            f"The {count} prompts and replies that are to begin together may come to {sum(tokens)} tokens, "
            f"and the engine's KV cache holds {capacity}. Ask for fewer tokens, start fewer together or "
            "shorten the conversation.",
            field="starts",
        )

    def ask(self, tokens: int, holder: Holder) -> Place:
        """Stand in line. The caller sees to it that the place is given back, and calls `fill`.

        Raises: FrameError where there can never be one.
        """
        (place,) = self.ask_together([(tokens, holder)])
        return place

    def ask_together(self, wanted: Sequence[tuple[int, Holder]]) -> list[Place]:
        """Stand in line as a group, which gets all its places in one call of `fill`; as `ask`.

        Args:
            wanted: tokens and holder of each; at least one.
        """
        self.check([tokens for tokens, _ in wanted])
        group = [Place(self, tokens, holder) for tokens, holder in wanted]
        self._line.append(group)
        return list(group)

    @contextlib.asynccontextmanager
    async def place(self, tokens: int) -> AsyncIterator[None]:
        """Wait for a place, and hold it as long as the context lasts. Raises FrameError where there is
        none."""
        turn = _Turn()
        place = self.ask(tokens, turn)
        try:
            self.fill()
            await turn.there
            yield
        finally:
            place.give_back()

    def take_back(self, place: Place) -> None:
        """What `Place.give_back` does."""
        if place in self._held:
            self._held.remove(place)
            self.tokens -= place.tokens
        elif (group := next((group for group in self._line if place in group), None)) is not None:
            group.remove(place)
            if not group:
                self._line.remove(group)
        else:
            return
        self.fill()

    def fill(self) -> None:
        """Let in, in order, those for whom there is room, and tell the others how many are before them."""
        self._changed = True
        if self._filling:
            return  # somebody who is told gives back or asks: the loop below goes round once more
        self._filling = True
        try:
            while self._changed:
                self._changed = False
                while self._line and self._is_open() and self._let_in():
                    pass
                position = 1
                for group in [list(group) for group in self._line]:
                    for place in group:
                        place.holder.wait_at(position)
                    position += len(group)
        finally:
            self._filling = False

    def refuse_all(self, why: FrameError) -> None:
        """Send away all who wait."""
        while self._line:
            for place in self._line.popleft():
                place.holder.refuse(why)

    def _let_in(self) -> bool:
        """Deal with the first in the line; False where they have to wait."""
        group = self._line[0]
        tokens = [place.tokens for place in group]
        try:
            self.check(tokens)
        except FrameError as why:  # an engine that was built again may hold less than the one before
            self._line.popleft()
            for place in group:
                place.holder.refuse(why)
            return True
        capacity = self._capacity()
        if len(self._held) + len(group) > self._most():
            return False
        if capacity is not None and self.tokens + sum(tokens) > capacity:
            return False
        self._line.popleft()
        self._held.update(group)
        self.tokens += sum(tokens)
        for place in group:
            if place in self._held:  # the one before it may have given it back when it was told
                place.holder.begin()
        return True


class _Turn:
    """Somebody who awaits his place."""

    def __init__(self) -> None:
        self.there: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        if not self.there.done():
            self.there.set_result(None)

    def wait_at(self, position: int) -> None:
        pass

    def refuse(self, why: FrameError) -> None:
        if not self.there.done():
            self.there.set_exception(why)
