"""Rows kept for prompts that begin alike: found exactly where tokens and what acted on them agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steersight.engine.request import RunOptions
from steersight.engine.run_state import RunState
from steersight.runs.columns import Columns
from steersight.runs.kept import ARRAY_BYTES, BLOCK, BLOCK_BYTES, KeptRows
from steersight.runs.log import RunLog
from steersight.vectors.action import Action

LAYERS = 2
NAMES: Columns = ["norm", "projection:v#1", None]
"""The third is the logit lens's."""


def state(*actions: Action) -> RunState:
    return RunState.begin(RunOptions("run"), actions)


def made(ids: Sequence[int], first: int = 0, columns: Columns = NAMES) -> tuple[RunLog, np.ndarray]:
    """A log with rows of positions from `first` on, each with its position's number in it."""
    log = RunLog("run", "id", [str(name) for name in columns], LAYERS, columns)
    values = np.zeros((len(ids), len(columns), LAYERS), dtype="<f2")
    values += np.arange(len(ids), dtype="<f2")[:, None, None] + np.arange(len(columns))[None, :, None] / 8
    if first < len(ids):
        log.add_rows(first, [0] * (len(ids) - first), values[first:].tobytes())
    return log, values


def found(
    kept: KeptRows,
    ids: Sequence[int],
    until: int,
    of: RunState,
    columns: Columns = NAMES,
    first: int = 0,
) -> np.ndarray:
    """[until - first, metrics, layers], infinite where there are none."""
    parts = [
        np.full((end - start, len(columns), LAYERS), np.inf) if rows is None else rows
        for start, end, rows in kept.find(columns, LAYERS, ids, of, until, first)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(columns), LAYERS))


@given(st.integers(0, 90), st.integers(0, 90), st.integers(0, 90))
def test_how_far_rows_reach_is_how_far_they_are_found(length: int, first: int, same: int) -> None:
    ids = [7 + at for at in range(length)]
    kept = KeptRows(1 << 20)
    log, _ = made(ids, min(first, length))
    kept.keep(log, ids, state())
    other = [*ids[:same], *range(1000, 1000 + 40)]
    reach = kept.reach(NAMES, other, state())
    assert reach == (min(length, same) // BLOCK * BLOCK if first == 0 else 0)
    assert np.isfinite(found(kept, other, reach, state())[:, 0]).all()
    assert kept.reach(["projection:w#1"], ids, state()) == 0
    # Of the logit lens a prompt has no rows: there is nothing to lack.
    assert kept.reach([None], other, state()) == len(other) // BLOCK * BLOCK


@given(st.integers(0, 90), st.integers(0, 90), st.integers(0, 90), st.integers(0, 90))
def test_rows_from_a_position_on_are_as_all_of_them(length: int, had: int, first: int, until: int) -> None:
    """What was kept begins anywhere, and so does what is wanted."""
    ids = [7 + at for at in range(90)]
    kept = KeptRows(1 << 20)
    log, _ = made(ids[:length], min(had, length))
    kept.keep(log, ids[:length], state())
    whole = found(kept, ids, until, state())
    np.testing.assert_array_equal(found(kept, ids, until, state(), first=first), whole[first:])
    reach = kept.reach(NAMES, ids, state(), first)
    # All that is wanted before it is there, and in the block behind it something is not.
    assert np.isfinite(found(kept, ids, reach, state(), first=first)[:, 0]).all()
    if reach + BLOCK <= len(ids):
        assert np.isinf(found(kept, ids, reach + BLOCK, state(), first=max(first, reach))[:, 0]).any()
        assert reach + BLOCK > first, "what is not wanted need not be there"


@given(st.integers(0, 90), st.integers(0, 90), st.integers(0, 90), st.integers(1, 90))
def test_whole_blocks_up_to_the_first_difference_are_found(
    length: int, first: int, same: int, until: int
) -> None:
    ids = [7 + at for at in range(length)]
    kept = KeptRows(1 << 20)
    first = min(first, length)
    log, values = made(ids, first)
    kept.keep(log, ids, state())
    other = [*ids[:same], *range(1000, 1000 + 200)]
    rows = found(kept, other, until, state())
    for position in range(until):
        block = position // BLOCK
        whole = block * BLOCK >= first and (block + 1) * BLOCK <= min(length, same)
        if whole:
            assert rows[position, :2].tolist() == values[position, :2].tolist()
            assert np.isnan(rows[position, 2]).all(), "the logit lens reads no prompt"
        else:
            assert np.isinf(rows[position]).all()


def test_what_was_steered_otherwise_is_not_found() -> None:
    ids = list(range(48))
    kept = KeptRows(1 << 20)
    log, values = made(ids)
    v = Action("v", 0.5, start=20, serial=1)
    kept.keep(log, ids, state(v))
    assert np.isfinite(found(kept, ids, 48, state(v))[:, :2]).all()
    # Where nothing acts they are the same rows; what attends to steered tokens is another stream.
    unsteered = found(kept, ids, 48, state())
    assert unsteered[:16, 0].tolist() == values[:16, 0].tolist()
    assert np.isinf(unsteered[16:]).all()
    assert np.isinf(found(kept, ids, 48, state(Action("v", 0.5, start=20, serial=2)))[16:]).all()


def test_rows_without_a_column_that_is_asked_for_are_none() -> None:
    ids = list(range(16))
    kept = KeptRows(1 << 20)
    log, _ = made(ids)
    kept.keep(log, ids, state())
    assert np.isinf(found(kept, ids, 16, state(), ["norm", "cosine"])).all()
    more, values = made(ids, columns=["cosine"])
    kept.keep(more, ids, state())
    both = found(kept, ids, 16, state(), ["cosine", "norm"])
    assert both[:, 0].tolist() == values[:, 0].tolist()
    assert np.isnan(found(kept, ids, 16, state(), [None])).all()


def test_a_metric_that_has_failed_is_not_kept() -> None:
    ids = list(range(16))
    kept = KeptRows(1 << 20)
    log = RunLog("run", "id", ["own"], LAYERS, ["own"])
    log.add_rows(0, [0] * 16, np.full((16, 1, LAYERS), np.nan, dtype="<f2").tobytes())
    kept.keep(log, ids, state())
    assert kept.size == 0
    assert np.isinf(found(kept, ids, 16, state(), ["own"])).all()


@given(st.integers(0, 80), st.integers(0, 80))
def test_where_the_columns_change_nothing_is_mixed(first: int, second: int) -> None:
    """Rows of three stretches with columns of their own: a block is found by what all of it has."""
    ids = list(range(80))
    borders = [0, *sorted((first, second)), 80]
    watched: list[Columns] = [["norm", "cosine"], ["cosine", "norm", None], ["share"]]
    log = RunLog("run", "id", ["a", "b"], LAYERS, watched[0])
    number = {"norm": 100, "cosine": 200, "share": 300, None: 400}
    for columns, start, end in zip(watched, borders, borders[1:], strict=False):
        log.rows.begin(["x"] * len(columns), columns)
        values = np.array([[number[name] + at for name in columns] for at in range(start, end)])
        if end > start:
            log.add_rows(start, [0] * (end - start), np.repeat(values, LAYERS).astype("<f2").tobytes())
    kept = KeptRows(1 << 20)
    kept.keep(log, ids, state())
    for name in ("norm", "cosine", "share"):
        rows = found(kept, ids, 80, state(), [name])[:, 0]
        for block in range(0, 80, BLOCK):
            whole = [
                columns
                for columns, start, end in zip(watched, borders, borders[1:], strict=False)
                if start <= block and block + BLOCK <= end
            ]
            there = bool(whole) and name in whole[0]
            expected = [number[name] + at if there else np.inf for at in range(block, block + BLOCK)]
            assert rows[block : block + BLOCK].T.tolist() == [expected] * LAYERS


def test_memory_is_bounded_and_the_longest_unused_go_first() -> None:
    block = BLOCK * 2 * LAYERS * 2 + 2 * ARRAY_BYTES + BLOCK_BYTES
    kept = KeptRows(3 * block)
    texts = [list(range(start, start + 16)) for start in (0, 100, 200, 300)]
    for ids in texts[:3]:
        kept.keep(made(ids)[0], ids, state())
    found(kept, texts[0], 16, state())
    kept.keep(made(texts[3])[0], texts[3], state())
    assert (kept.size, len(kept)) == (3 * block, 3)
    alive = [bool(np.isfinite(found(kept, ids, 16, state())[0, 0, 0])) for ids in texts]
    assert alive == [True, False, True, True]
    nothing = KeptRows(0)
    nothing.keep(made(texts[0])[0], texts[0], state())
    assert len(nothing) == 0
