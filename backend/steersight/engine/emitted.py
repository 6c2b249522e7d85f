"""What blocks of Python have emitted (`steersight.live`), as a step brings it to the server. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("entries", "columns", "layers", "counts")
"""Of `Emitted` those that are whole numbers, an entry for each value."""


@dataclass(frozen=True)
class Emitted:
    """Of each value a name, a layer, and numbers of the last rows of an entry, also of one without numbers of
    its own."""

    names: list[str]
    """All that are named here."""
    entries: NDArray[np.int32]
    """[emitted] indices of entries, ascending"""
    columns: NDArray[np.int32]
    """[emitted] indices of names"""
    layers: NDArray[np.int32]
    """[emitted]"""
    counts: NDArray[np.int32]
    """[emitted] how many numbers: of so many last rows of the entry"""
    values: NDArray[np.float16]
    """[all numbers] of one after the other; NaN is no value"""

    @property
    def nbytes(self) -> int:
        """Size on the wire."""
        return int(self.values.nbytes + 4 * self.entries.nbytes)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts, dtype=np.int64)

    def of(self, entry: int) -> list[tuple[str, int, NDArray[np.float16]]]:
        """Name, layer and numbers of all that one entry has."""
        first, last = np.searchsorted(self.entries, [entry, entry + 1]).tolist()
        return [
            (self.names[self.columns[at]], int(self.layers[at]), self._numbers(at))
            for at in range(first, last)
        ]

    def _numbers(self, at: int) -> NDArray[np.float16]:
        end = int(self._ends[at])
        return self.values[end - int(self.counts[at]) : end]

    def part(self, taken: list[tuple[int, int, int]], lengths: NDArray[np.int32]) -> Emitted | None:
        """What belongs to some rows of some entries; None where that is nothing.

        Args:
            taken: (entry, first row, one past the last), ascending. What is returned numbers these from 0.
            lengths: [entries] rows of each.
        """
        kept: list[tuple[int, int, NDArray[np.float16]]] = []  # new entry, which one, numbers
        for place, (entry, begin, end) in enumerate(taken):
            first, last = np.searchsorted(self.entries, [entry, entry + 1]).tolist()
            for at in range(first, last):
                front = int(lengths[entry] - self.counts[at])  # the first row that has a number
                numbers = self._numbers(at)[max(0, begin - front) : max(0, end - front)]
                if len(numbers):
                    kept.append((place, at, numbers))
        if not kept:
            return None
        chosen = np.array([which for _, which, _ in kept])
        return Emitted(
            names=self.names,
            entries=np.array([place for place, _, _ in kept], dtype=np.int32),
            columns=self.columns[chosen],
            layers=self.layers[chosen],
            counts=np.array([len(numbers) for _, _, numbers in kept], dtype=np.int32),
            values=np.concatenate([numbers for _, _, numbers in kept]),
        )
