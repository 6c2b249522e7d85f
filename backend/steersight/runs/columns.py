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
from dataclasses import dataclass, field

Columns = Sequence[str | None]
"""Per metric of a run: what its column is known by, None where a prompt's rows have none."""


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


@dataclass
class Segment:
    """Rows one after the other that have the same columns."""

    first: int
    """Index of its first row."""
    metrics: list[str]
    """What its columns are, as clients name them."""
    columns: Columns
    """What each is known by where rows are kept for other runs (`kept.py`)."""
    width: int = 0
    """Bytes of one row's `values` and `entropy`."""
    values: bytearray = field(default_factory=bytearray)
    """Of the rows that are held: [rows, metrics, layers] half floats, transformed."""
    entropy: bytearray | None = None
    """Half floats, one for each row that is held; None where nobody asked."""

    def let_go(self, rows: int) -> None:
        """Forget the numbers of so many of the oldest rows that are held."""
        del self.values[: rows * self.values_width]
        if self.entropy is not None:
            del self.entropy[: rows * 2]

    @property
    def values_width(self) -> int:
        """Bytes of one row's `values`."""
        return self.width if self.entropy is None else self.width - 2


class RowColumns:
    """Rows of ascending positions, with their numbers. The numbers of the oldest can be let go.

    What a run is watched with may change: its rows lie in segments, each with columns of its own. What is
    asked for as one piece lies in one of them (`stretches`).
    """

    def __init__(self, metrics: list[str], columns: Columns = ()) -> None:
        """`metrics` and `columns`: of the first segment."""
        self.numbers = array("i")
        self.positions = array("i")
        self.revs = array("i")
        self.gone = 0
        """Of so many of the oldest rows the numbers have been let go."""
        self.width = 0
        """Bytes of the heaviest row's `values` and `entropy`."""
        self.size = 0
        """Bytes of all numbers that are held."""
        self._segments = [Segment(0, metrics, columns)]
        self._firsts = array("i", [0])
        """Per segment the index of its first row."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def end(self) -> int:
        """One past the newest position; 0 without rows."""
        return self.positions[-1] + 1 if self.positions else 0

    def begin(self, metrics: list[str], columns: Columns = ()) -> None:
        """Rows that come from now on have these columns."""
        if self._firsts[-1] == len(self):  # nobody has had a row of the segment before
            del self._segments[-1], self._firsts[-1]
        self._segments.append(Segment(len(self), metrics, columns))
        self._firsts.append(len(self))

    def append(
        self, number: int, start: int, revs: Sequence[int], values: bytes, entropy: bytes | None
    ) -> int:
        """Rows of consecutive positions, each an event of its own; returns how many bytes they are.

        Args:
            number: of the first one's event; the others follow it.
            start: position of the first one.
            revs: the revision of each.
            values: [rows, metrics, layers] half floats.
            entropy: [rows] half floats; for all rows of a segment, or for none.
        """
        segment = self._segments[-1]
        if segment.first == len(self):
            segment.width = len(values) // len(revs)
            if entropy is not None:
                segment.entropy = bytearray()
                segment.width += 2
            self.width = max(self.width, segment.width)
        if len(revs) == 1:  # nearly always
            self.numbers.append(number)
            self.positions.append(start)
            self.revs.append(revs[0])
        else:
            self.numbers.extend(range(number, number + len(revs)))
            self.positions.extend(range(start, start + len(revs)))
            self.revs.extend(revs)
        segment.values += values
        if entropy is not None and segment.entropy is not None:
            segment.entropy += entropy
        size = len(revs) * segment.width
        self.size += size
        return size

    def let_go(self, rows: int) -> None:
        """Forget the numbers of so many more of the oldest rows."""
        until = self.gone + rows
        while self.gone < until:
            index = self._index(self.gone)
            behind = self._firsts[index + 1] if index + 1 < len(self._firsts) else len(self)
            some = min(until, behind) - self.gone
            self._segments[index].let_go(some)
            self.size -= some * self._segments[index].width
            self.gone += some

    def between(self, cursor: int, end: int) -> tuple[int, int]:
        """Indices [first, last) of those with numbers cursor + 1 to `end`."""
        return _between(self.numbers, cursor, end)

    def at(self, start: int, end: int) -> tuple[int, int]:
        """Indices [first, last) of those with positions [start, end)."""
        return bisect_left(self.positions, start), bisect_left(self.positions, end)

    def segment(self, index: int) -> Segment:
        """Where a row lies."""
        return self._segments[self._index(index)]

    def _index(self, row: int) -> int:
        if row >= self._firsts[-1]:
            return len(self._firsts) - 1  # nearly always
        return bisect_right(self._firsts, row) - 1

    def values_of(self, first: int, last: int) -> bytes:
        """The values of the rows [first, last) of one segment, which are held."""
        segment = self.segment(first)
        width, held = segment.values_width, max(self.gone, segment.first)
        return bytes(segment.values[(first - held) * width : (last - held) * width])

    def entropy_of(self, first: int, last: int) -> bytes | None:
        """The entropies of the rows [first, last) of one segment, which are held."""
        segment = self.segment(first)
        if segment.entropy is None:
            return None
        held = max(self.gone, segment.first)
        return bytes(segment.entropy[(first - held) * 2 : (last - held) * 2])

    def stretches(self, first: int, last: int, most: int | None = None) -> Iterator[tuple[int, int]]:
        """The rows [first, last) as index ranges of consecutive positions and one segment, of at most `most`
        rows each."""
        positions = self.positions
        while first < last:
            until = last if most is None else min(last, first + most)
            index = self._index(first)
            if index + 1 < len(self._firsts):
                until = min(until, self._firsts[index + 1])
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
