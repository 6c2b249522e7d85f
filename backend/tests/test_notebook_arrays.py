"""Numbers with named axes, held against plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from steersight.notebook import Rows

shapes = st.tuples(st.integers(1, 6), st.integers(1, 5))
values = shapes.flatmap(
    lambda shape: arrays.arrays(
        np.float32, shape, elements=st.floats(-8, 8, width=32) | st.just(float("nan"))
    )
)


def rows(of: Any) -> Rows:
    coords = {"positions": np.arange(of.shape[0]), "layers": np.arange(of.shape[1])}
    return Rows(of, ("positions", "layers"), coords, "norm", "nats")


@given(values, st.data())
def test_what_is_picked_is_what_numpy_has_there(of: Any, data: st.DataObject) -> None:
    found = rows(of)
    start, stop = (data.draw(st.none() | st.integers(0, 7)) for _ in range(2))
    layers = data.draw(st.lists(st.integers(0, of.shape[1] - 1), unique=True, max_size=4))
    part = found.sel(positions=slice(start, stop), layers=layers)
    np.testing.assert_array_equal(np.asarray(part), of[start:stop][:, layers])
    assert part.positions.tolist() == list(range(of.shape[0]))[start:stop]
    assert part.layers.tolist() == layers
    layer = data.draw(st.integers(0, of.shape[1] - 1))
    one = found.sel(layers=layer)
    assert one.dims == ("positions",)
    np.testing.assert_array_equal(one.values, of[:, layer])
    number = one.sel(positions=0)
    assert (number.dims, number.shape) == ((), ())
    np.testing.assert_array_equal(number.values, of[0, layer])


@given(values)
def test_a_mean_is_of_what_is_there(of: Any) -> None:
    mean = rows(of).mean("layers")
    assert mean.dims == ("positions",)
    for row, value in zip(of, mean.values, strict=True):
        there = row[~np.isnan(row)]
        np.testing.assert_allclose(value, there.mean() if len(there) else np.nan, rtol=1e-5, atol=1e-6)


@given(values)
def test_pandas_has_the_same_under_the_same_labels(of: Any) -> None:
    frame = rows(of).sel(positions=slice(1, None)).frame()
    assert (frame.index.name, frame.columns.name) == ("positions", "layers")
    np.testing.assert_array_equal(frame.to_numpy(), of[1:])
    if of.shape[0] > 1:
        np.testing.assert_array_equal(frame.loc[1, 0], of[1, 0])


def test_numpy_takes_it_as_an_array() -> None:
    of = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.log1p(rows(of)).tolist() == np.log1p(of).tolist()
    assert np.asarray(rows(of), dtype=np.float64).dtype == np.float64
    assert len(rows(of)) == 3
    assert repr(rows(of)).startswith("Rows(norm in nats; positions 0 to 2, layers 0 to 1)")


def test_what_is_not_there_is_said() -> None:
    found = rows(np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(KeyError, match="no 7 among the layers, which are 0 to 1"):
        found.sel(layers=7)
    with pytest.raises(KeyError, match="no axis 'tokens'"):
        found.mean("tokens")
    with pytest.raises(KeyError, match="no axis 'layers' here, only positions"):
        _ = found.sel(layers=0).layers
    with pytest.raises(ValueError, match="no step"):
        found.sel(positions=slice(0, 3, 2))
    with pytest.raises(ValueError, match="do not fit"):
        Rows(np.zeros(2, dtype=np.float32), ("layers",), {"layers": np.arange(3)}, "norm")
