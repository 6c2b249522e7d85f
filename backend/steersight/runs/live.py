"""The columns that a run's own blocks of Python bring (`steersight.live`), beside what it is watched with.

A name becomes a column in the row in which it comes first, and stays one to the run's end, whatever else the
run is watched with. Where nothing was emitted, in a row or at a layer, there is no value. Rows that are kept
for other runs are kept without these columns: no other run computes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..protocol.messages import ColorScale, MetricInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engine.emitted import Emitted

PREFIX = "live:"


def described(name: str) -> MetricInfo:
    """What clients are told of a name."""
    return MetricInfo(
        id=PREFIX + name, label=name, description="Computed by the block of this run, as it is written.",
        unit="", transform="linear", scale=ColorScale(kind="sequential", lo=None, hi=None), family="live",
        cost="", default=False, error=None,
    )  # fmt: skip


class LiveColumns:
    """The names of one run, in the order in which they came."""

    def __init__(self, layers: int) -> None:
        """`layers`: of the model."""
        self._layers = layers
        self._at: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._at)

    @property
    def metrics(self) -> list[str]:
        """Ids, in the order of the columns."""
        return [PREFIX + name for name in self._at]

    @property
    def described(self) -> tuple[MetricInfo, ...]:
        """What they are."""
        return tuple(map(described, self._at))

    def heard(self, emitted: Emitted | None, entry: int) -> bool:
        """Whether an entry of a step brings names that have not come before; they are columns now."""
        if emitted is None:
            return False
        before = len(self._at)
        for name, _, _ in emitted.of(entry):
            self._at.setdefault(name, len(self._at))
        return len(self._at) > before

    def numbers(self, emitted: Emitted | None, entry: int, rows: int) -> NDArray[np.float16]:
        """[rows, names, layers] of so many last rows of an entry; NaN where nothing was emitted."""
        found = np.full((rows, len(self._at), self._layers), np.nan, dtype="<f2")
        for name, layer, numbers in emitted.of(entry) if emitted is not None else ():
            last = numbers[-rows:]
            found[rows - len(last) :, self._at[name], layer] = last
        return found
