"""Numbers with named axes: what `run.rows(metric)` returns.

A class of our own and not xarray: there are two axes, always the same, and what people do with them is to
pick positions and layers, average over one, and hand the rest to numpy. xarray would bring itself and pandas
to everybody who imports this. Who has it writes
`xarray.DataArray(rows.values, dims=rows.dims, coords=rows.coords)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .missing import needed

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES = ("positions", "layers")
Wanted = int | slice | Sequence[int] | None
"""One label, several, or a slice of labels whose end is not among them; None is all."""


@dataclass(frozen=True, eq=False)
class Rows:
    """One metric of one run: values over positions and layers.

    numpy takes it wherever it takes an array (`np.log(rows)`, `rows - other.values`).

    Example:
        norms = run.rows("residual_norm")
        norms.sel(layers=20)                      # one layer, over all positions
        norms.sel(positions=slice(10, 20)).mean("layers")
    """

    values: NDArray[np.float32]
    """In the metric's unit; NaN where there is no row. One axis for each name in `dims`."""
    dims: tuple[str, ...]
    """Names of the axes, `positions` before `layers`; one that was picked from or averaged over is gone."""
    coords: dict[str, NDArray[np.int64]]
    """Labels along each axis: positions in prompt and reply, from 0; layers, from 0."""
    metric: str
    """Its id."""
    unit: str = ""

    def __post_init__(self) -> None:
        shape = tuple(len(self.coords[name]) for name in self.dims)
        if (
            self.values.shape != shape
            or not set(self.dims) <= set(AXES)
            or set(self.coords) != set(self.dims)
        ):
            raise ValueError(f"Values of shape {self.values.shape} do not fit {self.dims} of {shape} labels.")

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""
        return self.values.shape

    @property
    def positions(self) -> NDArray[np.int64]:
        """Labels of the positions."""
        return self._labels("positions")

    @property
    def layers(self) -> NDArray[np.int64]:
        """Labels of the layers."""
        return self._labels("layers")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.values)

    def sel(self, *, positions: Wanted = None, layers: Wanted = None) -> Rows:
        """What stands at these labels. An axis from which one label is picked is gone.

        Raises KeyError with a sentence for a label that is not there.
        """
        found = self
        for name, wanted in (("positions", positions), ("layers", layers)):
            if wanted is not None:
                found = found._picked(name, wanted)
        return found

    def mean(self, axis: str) -> Rows:
        """The mean over one axis, of the values that are there; NaN where none is."""
        self._labels(axis)
        at = self.dims.index(axis)
        there = ~np.isnan(self.values)
        count = there.sum(axis=at)
        total = np.where(there, self.values, 0).sum(axis=at, dtype=np.float64)
        values = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        return self._with(values, {name: self.coords[name] for name in self.dims if name != axis})

    def frame(self) -> Any:
        """A pandas DataFrame, positions down and layers across; a Series where one axis is left.

        Raises ImportError with a sentence where pandas is missing.
        """
        pandas = needed("pandas", "A frame")
        labels = [pandas.Index(self.coords[name], name=name) for name in self.dims]
        if len(labels) == 2:
            return pandas.DataFrame(self.values, index=labels[0], columns=labels[1])
        if len(labels) == 1:
            return pandas.Series(self.values, index=labels[0], name=self.metric)
        raise ValueError("One number is no frame.")

    def __repr__(self) -> str:
        axes = ", ".join(
            f"{name} {_span(self.coords[name])}" for name in self.dims
        )  # fmt: skip
        unit = f" in {self.unit}" if self.unit else ""
        return f"Rows({self.metric}{unit}; {axes or 'one number'})\n{self.values}"

    def _labels(self, name: str) -> NDArray[np.int64]:
        if name not in self.dims:
            raise KeyError(f"There is no axis {name!r} here, only {', '.join(self.dims) or 'one number'}.")
        return self.coords[name]

    def _picked(self, name: str, wanted: int | slice | Sequence[int]) -> Rows:
        labels = self._labels(name)
        at = self.dims.index(name)
        if isinstance(wanted, slice):
            if wanted.step not in (None, 1):
                raise ValueError("A slice of labels has no step. Name the labels in a list.")
            start = -np.inf if wanted.start is None else wanted.start
            stop = np.inf if wanted.stop is None else wanted.stop
            index: Any = np.flatnonzero((labels >= start) & (labels < stop))
        elif isinstance(wanted, (int, np.integer)):
            index = _place(labels, int(wanted), name)
        else:
            index = np.array([_place(labels, int(one), name) for one in wanted], dtype=np.intp)
        values = np.asarray(np.take(self.values, index, axis=at), dtype=np.float32)
        coords = {other: self.coords[other] for other in self.dims if other != name}
        if np.ndim(index) == 1:
            coords = {other: labels[index] if other == name else coords[other] for other in self.dims}
        return self._with(values, coords)

    def _with(self, values: NDArray[np.float32], coords: dict[str, NDArray[np.int64]]) -> Rows:
        return Rows(values, tuple(coords), coords, self.metric, self.unit)


def _place(labels: NDArray[np.int64], label: int, name: str) -> int:
    found = np.flatnonzero(labels == label)
    if not len(found):
        raise KeyError(f"There is no {label} among the {name}, which are {_span(labels)}.")
    return int(found[0])


def _span(labels: NDArray[np.int64]) -> str:
    if not len(labels):
        return "none"
    return str(labels[0]) if len(labels) == 1 else f"{labels[0]} to {labels[-1]}"
