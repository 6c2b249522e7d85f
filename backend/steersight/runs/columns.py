"""The tokens and the rows of one run, in columns.

They come for every run and step, and stay. As one object each they would cost more than all the rest of
a token's way: to make it, to let the garbage collector look through it, and to take it apart for a frame. In
columns a token is a few appends, and a frame is a few slices.

`numbers` holds the sequence number of each entry's event, ascending, so that what lies behind a cursor is
found by bisection.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence


class TokenColumns:
    """Tokens of consecutive positions."""

    def __init__(self) -> None:
        self.numbers = array("i")
        self.start = 0
        """Position of the first."""
        self.ids = array("i")
        self.texts: list[str] = []
        self.logprobs: list[float | None] = []
        self.ranks: list[int | None] = []

    def __len__(self) -> int:
        return len(self.ids)

    def append(
        self, number: int, position: int, token: int, text: str, logprob: float | None, rank: int | None
    ) -> None:
        """One more, at the position behind the last."""
        if not self.ids:
            self.start = position
        self.numbers.append(number)
        self.ids.append(token)
        self.texts.append(text)
        self.logprobs.append(logprob)
        self.ranks.append(rank)

    def between(self, cursor: int, end: int) -> tuple[int, int]:
        """Indices [first, last) of those with numbers cursor + 1 to `end`."""
        return _between(self.numbers, cursor, end)


class RowColumns:
    """Rows of ascending positions, with their numbers. The numbers of the oldest can be let go."""

    def __init__(self) -> None:
        self.numbers = array("i")
        self.positions = array("i")
        self.revs = array("i")
        self.gone = 0
        """Of so many of the oldest rows the numbers have been let go."""
        self.width = 0
        """Bytes of one row's `values` and `entropy`; all rows of a run are alike."""
        self.entropy: bytearray | None = None
        """Half floats, one for each row that is held; None where nobody asked."""
        self._values = bytearray()
        """Of the rows that are held: [rows, metrics, layers] half floats, transformed."""
        self._values_width = 0

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def size(self) -> int:
        """Bytes of all numbers that are held."""
        return (len(self.positions) - self.gone) * self.width

    @property
    def end(self) -> int:
        """One past the newest position; 0 without rows."""
        return self.positions[-1] + 1 if self.positions else 0

    def append(
        self, number: int, start: int, revs: Sequence[int], values: bytes, entropy: bytes | None
    ) -> int:
        """Rows of consecutive positions, each an event of its own; returns how many bytes they are.

        Args:
            number: of the first one's event; the others follow it.
            start: position of the first one.
            revs: the revision of each.
            values: [rows, metrics, layers] half floats.
            entropy: [rows] half floats; for all rows of a run, or for none.
        """
        if not self.width:
            self._values_width = self.width = len(values) // len(revs)
            if entropy is not None:
                self.entropy = bytearray()
                self.width += 2
        if len(revs) == 1:  # nearly always
            self.numbers.append(number)
            self.positions.append(start)
            self.revs.append(revs[0])
        else:
            self.numbers.extend(range(number, number + len(revs)))
            self.positions.extend(range(start, start + len(revs)))
            self.revs.extend(revs)
        self._values += values
        if entropy is not None and self.entropy is not None:
            self.entropy += entropy
        return len(revs) * self.width

    def let_go(self, rows: int) -> None:
        """Forget the numbers of so many more of the oldest rows."""
        self.gone += rows
        del self._values[: rows * self._values_width]
        if self.entropy is not None:
            del self.entropy[: rows * 2]

    def between(self, cursor: int, end: int) -> tuple[int, int]:
        """Indices [first, last) of those with numbers cursor + 1 to `end`."""
        return _between(self.numbers, cursor, end)

    def at(self, start: int, end: int) -> tuple[int, int]:
        """Indices [first, last) of those with positions [start, end)."""
        return bisect_left(self.positions, start), bisect_left(self.positions, end)

    def values_of(self, first: int, last: int) -> bytes:
        """The values of the rows [first, last), which are held."""
        width = self._values_width
        return bytes(self._values[(first - self.gone) * width : (last - self.gone) * width])

    def entropy_of(self, first: int, last: int) -> bytes | None:
        """The entropies of the rows [first, last), which are held."""
        if self.entropy is None:
            return None
        return bytes(self.entropy[(first - self.gone) * 2 : (last - self.gone) * 2])

    def stretches(self, first: int, last: int, most: int | None = None) -> Iterator[tuple[int, int]]:
        """The rows [first, last) as index ranges of consecutive positions, of at most `most` rows each."""
        positions = self.positions
        while first < last:
            until = last if most is None else min(last, first + most)
            # Positions ascend: where the ends are as far apart as the indices, nothing is missing between.
            if positions[until - 1] - positions[first] != until - 1 - first:
                until = self._hole(first, until)
            yield first, until
            first = until

    def _hole(self, first: int, last: int) -> int:
        """Index of the first row in (first, last) before which a position is missing; there is one."""
        positions = self.positions
        # All rows before the hole are as far from the first as their indices, and none behind it is.
        low, high = first, last - 1
        while high - low > 1:
            middle = (low + high) // 2
            if positions[middle] - positions[first] == middle - first:
                low = middle
            else:
                high = middle
        return high


def _between(numbers: array[int], cursor: int, end: int) -> tuple[int, int]:
    last = len(numbers)
    if last and numbers[-1] > end:
        last = bisect_right(numbers, end)
    # Whoever reads is nearly always near the end.
    near = max(0, last - 8)
    first = bisect_right(numbers, cursor, near if near and numbers[near - 1] <= cursor else 0, last)
    return first, last
