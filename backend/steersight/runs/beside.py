"""What stands beside the rows of one run: the likeliest tokens, by the logit lens and by the model itself.

One event for each position that has them, in ascending order. They weigh something, so they are let go with
the rows that they belong to. A token is named once by each kind; whatever goes, or is left out for a slow
reader, hands its names to what stays. So the newest one always stays.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Generic, TypeVar

from .events import AlternativesEvent, LensEvent

E = TypeVar("E", bound=LensEvent | AlternativesEvent)


class Beside(Generic[E]):
    """The events of one kind that are held."""

    def __init__(self) -> None:
        self.events: list[E] = []
        self.size = 0
        """Bytes of them all."""
        self.heaviest = 0
        """Bytes of the heaviest there has been."""
        self._numbers: list[int] = []

    def append(self, number: int, event: E) -> int:
        """One more, as event `number` of the log, behind all others; returns how many bytes it has."""
        self.events.append(event)
        self._numbers.append(number)
        size = event.size
        self.size += size
        self.heaviest = max(self.heaviest, size)
        return size

    def between(self, cursor: int, end: int) -> list[E]:
        """Those with numbers cursor + 1 to `end`."""
        numbers = self._numbers
        if not numbers or numbers[-1] <= cursor:
            return []
        return self.events[bisect_right(numbers, cursor) : bisect_right(numbers, end)]

    def at(self, start: int, end: int) -> list[E]:
        """Those of positions [start, end)."""
        first, last = (bisect_left(self.events, at, key=_position) for at in (start, end))
        return self.events[first:last]

    def let_go(self, position: int) -> None:
        """Forget those up to a position, but for the newest."""
        gone = min(bisect_right(self.events, position, key=_position), len(self.events) - 1)
        if gone <= 0:
            return
        self.size -= sum(event.size for event in self.events[:gone])
        self.events[gone] = _named(self.events[gone], self.events[: gone + 1])
        del self.events[:gone], self._numbers[:gone]


def newest(events: list[E], bound: int) -> list[E]:
    """Of ascending events those from position `bound` on, with the names of the others. Where there are names
    and no such event, the last of all stays to bring them."""
    first = bisect_left(events, bound, key=_position)
    left: list[E] = events[:first]
    kept: list[E] = events[first:]
    if not any(event.names for event in left):
        return kept
    if not kept:
        return [_named(left[-1], left)]
    return [_named(kept[0], [*left, kept[0]]), *kept[1:]]


def grouped(events: Iterable[E]) -> list[list[E]]:
    """Those of consecutive positions that are alike, which one frame can bring."""
    groups: list[list[E]] = []
    for event in events:
        last = groups[-1][-1] if groups else None
        if last is not None and last.position + 1 == event.position and _shape(last) == _shape(event):
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


def _shape(event: LensEvent | AlternativesEvent) -> Hashable:
    return (tuple(event.layers) if isinstance(event, LensEvent) else (), event.ids.shape)


def _position(event: LensEvent | AlternativesEvent) -> int:
    return event.position


def _named(event: E, events: list[E]) -> E:
    """The event with the names that all these have."""
    return replace(event, names=[name for other in events for name in other.names])
