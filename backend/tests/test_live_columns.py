"""What a run's blocks emit, as columns of its rows: from the row on in which a name first comes, whatever the
run is watched with, and described where it comes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from steersight.engine.reply import Entry
from steersight.engine.request import RunOptions
from steersight.engine.run_state import RunState
from steersight.engine.step import BARE, Emitted, Step
from steersight.recordings import read_recording
from steersight.recordings.recording import one_run
from steersight.recordings.writer import recording_bytes
from steersight.runs.events import StartedEvent
from steersight.runs.kept import BLOCK, KeptRows
from steersight.runs.log import RunLog
from steersight.runs.recording import frames_of, recorded
from steersight.runs.rows import RowWriter
from steersight.runs.run import Run
from steersight.runs.watching import Watching
from steersight.telemetry import Telemetry

from .sent import sent
from .test_run_recording import ABOUT, ASKED, MODEL, PROMPT, as_client, assert_same

LAYERS = 3
NORM = ["residual_norm"]
Values = dict[tuple[str, int], list[float]]
"""Name and layer -> what was emitted at the last positions of an entry."""


def entry(
    start: int, rows: int = 1, values: Values | None = None, *, watch: int = 0, bare: bool = False
) -> Entry:
    """An entry with metric m of layer l at position p being 100 p + l."""
    at = np.arange(start, start + rows)[:, None, None] * 100 + np.arange(LAYERS)
    emitted = None
    if values:
        emitted = Emitted(
            sorted({name for name, _ in values}), np.zeros(len(values), dtype=np.int32),
            np.array([sorted({name for name, _ in values}).index(name) for name, _ in values]),
            np.array([layer for _, layer in values]), np.array([len(one) for one in values.values()]),
            np.array([one for some in values.values() for one in some], dtype="<f2"),
        )  # fmt: skip
    step = Step(
        runs=["r"], starts=np.array([start]), counts=np.array([rows]), first=np.array([BARE if bare else 0]),
        revisions=np.zeros(rows), tokens=np.array([7]), logprobs=np.zeros(1), ranks=np.ones(1),
        watches=np.array([watch]), metrics=[] if bare else NORM, layers=LAYERS,
        values=np.empty((0, 0, LAYERS), dtype="<f2") if bare else at.astype("<f2"), emitted=emitted,
    )  # fmt: skip
    return Entry(start, [0] * rows, 7, None, None, step, BARE if bare else 0, 0, watch)


class Written:
    """A run's rows as they are written, and what its clients have of them."""

    def __init__(self, metrics: list[str] = NORM, first_row: int = 0, layers: int = LAYERS) -> None:
        watching = Watching(metrics, list(metrics))
        self.log = RunLog("r", "x", metrics, layers, watching.columns)
        self.writer = RowWriter(
            self.log, watching, first_row, texts=cast(Any, None), telemetry=Telemetry(),
            applied=lambda *_: None, read=lambda start, end, _: [(start, end, None)],
        )  # fmt: skip

    def watched_with(self, number: int, metrics: list[str], **more: Any) -> None:
        self.writer.expect(Watching(metrics, list(metrics), number=number, **more))

    def take(self, *entries: Entry) -> list[Any]:
        """Write them; the frames for whoever reads from the beginning."""
        for one in entries:
            self.writer.take(one)
        return sent(self.log.frames_since(0)[0])


def watched(frames: list[Any]) -> list[tuple[int, list[str], list[str]]]:
    """Position, metrics, and which of them are described as the run's own, of each change."""
    return [
        (frame.position, frame.metrics, [metric.id for metric in frame.live])
        for frame in frames
        if frame.type == "watched"
    ]


def numbers(frames: list[Any], metric: str) -> dict[int, list[float]]:
    """Position -> [layers] of a metric, where rows have it."""
    found = {}
    for frame in frames:
        if frame.type == "rows" and metric in frame.metrics:
            shape = frame.count, len(frame.metrics), frame.layers
            values = np.frombuffer(frame.data, dtype="<f2").reshape(shape)
            for at in range(frame.count):
                found[frame.start + at] = values[at, frame.metrics.index(metric)].tolist()
    return found


def same(found: dict[int, list[float]], expected: dict[int, list[float]]) -> bool:
    return found.keys() == expected.keys() and all(
        np.array_equal(found[at], expected[at], equal_nan=True) for at in found
    )


NAN = float("nan")


def test_a_name_is_a_column_from_the_row_on_in_which_it_first_comes() -> None:
    run = Written()
    frames = run.take(
        entry(0, 3),
        entry(3, values={("a", 1): [5]}),
        entry(4),
        entry(5, values={("a", 0): [6], ("b", 2): [7]}),
    )
    assert watched(frames) == [
        (3, [*NORM, "live:a"], ["live:a"]),
        (5, [*NORM, "live:a", "live:b"], ["live:a", "live:b"]),
    ]
    assert same(numbers(frames, "live:a"), {3: [NAN, 5, NAN], 4: [NAN] * 3, 5: [6, NAN, NAN]})
    assert same(numbers(frames, "live:b"), {5: [NAN, NAN, 7]})
    assert same(numbers(frames, NORM[0]), {at: [100 * at + layer for layer in range(3)] for at in range(6)})
    (described,) = [metric for frame in frames if frame.type == "watched" for metric in frame.live][:1]
    assert (described.label, described.family, described.transform) == ("a", "live", "linear")
    assert described.description == "Computed by the block of this run, as it is written."


def test_a_prompt_has_a_number_for_each_token_or_one_for_its_last() -> None:
    frames = Written().take(entry(0, 3, {("each", 0): [1, 2, 3], ("last", 1): [9]}))
    assert watched(frames) == [(0, [*NORM, "live:each", "live:last"], ["live:each", "live:last"])]
    assert same(numbers(frames, "live:each"), {0: [1, NAN, NAN], 1: [2, NAN, NAN], 2: [3, NAN, NAN]})
    assert same(numbers(frames, "live:last"), {0: [NAN] * 3, 1: [NAN] * 3, 2: [NAN, 9, NAN]})


def test_rows_that_are_there_already_are_not_written_again() -> None:
    run = Written()
    frames = run.take(entry(0, 2, {("a", 0): [1, 2]}), entry(1, 3, {("a", 0): [7, 8, 9]}))
    assert same(numbers(frames, "live:a"), {at: [n, NAN, NAN] for at, n in enumerate([1, 2, 8, 9])})


def test_a_run_that_is_watched_with_nothing_has_rows_of_its_own_numbers_alone() -> None:
    run = Written([])
    frames = run.take(
        entry(0, 3, bare=True), entry(3, values={("a", 1): [5]}, bare=True), entry(4, bare=True),
        entry(5, values={("a", 1): [6]}, bare=True),
    )  # fmt: skip
    assert watched(frames) == [(3, ["live:a"], ["live:a"])]
    assert same(numbers(frames, "live:a"), {3: [NAN, 5, NAN], 4: [NAN] * 3, 5: [NAN, 6, NAN]})
    assert not any(frame.type == "gap" for frame in frames)
    (again,) = sent(run.log.rows_at(4, 1, 9))
    assert (again.metrics, again.start) == (["live:a"], 4)


def test_what_the_run_is_watched_with_changes_around_its_own_columns() -> None:
    run = Written()
    run.watched_with(1, [])
    run.watched_with(2, NORM)
    frames = run.take(
        entry(0, values={("a", 0): [1]}),
        entry(1, values={("a", 0): [2]}, watch=1, bare=True),
        entry(2, values={("a", 0): [3], ("b", 0): [4]}, watch=2),
        entry(3, watch=2),
    )
    assert watched(frames) == [
        (0, [*NORM, "live:a"], ["live:a"]),
        (1, ["live:a"], ["live:a"]),
        (2, [*NORM, "live:a", "live:b"], ["live:a", "live:b"]),
    ]
    assert same(numbers(frames, "live:a"), {at: [n, NAN, NAN] for at, n in enumerate([1, 2, 3, NAN])})
    assert set(numbers(frames, NORM[0])) == {0, 2, 3}


def test_entropy_goes_along() -> None:
    run = Written([])
    run.watched_with(1, [], entropy=True)
    whole = entry(0, 2, {("a", 0): [1, 2]}, watch=1)
    assert whole.step is not None
    frames = run.take(whole._replace(step=replace(whole.step, entropy=np.array([0.5, 0.25], dtype="<f2"))))
    assert same(numbers(frames, "live:a"), {0: [1, NAN, NAN], 1: [2, NAN, NAN]})
    (rows,) = [frame for frame in frames if frame.type == "rows"]
    assert np.frombuffer(rows.entropy, dtype="<f2").tolist() == [0.5, 0.25]


@pytest.mark.parametrize("metrics", [[], NORM])
def test_a_step_whose_numbers_were_lost_is_a_gap(metrics: list[str]) -> None:
    run, bare = Written(metrics), not metrics
    lost = entry(1, bare=True)
    assert lost.step is not None
    frames = run.take(
        entry(0, values={("a", 0): [1]}, bare=bare),
        lost._replace(step=replace(lost.step, lost=True)),
        entry(2, values={("a", 0): [3]}, bare=bare),
    )
    assert [(frame.start, frame.count, frame.kept) for frame in frames if frame.type == "gap"] == [
        (1, 1, False)
    ]
    assert set(numbers(frames, "live:a")) == {0, 2}


def test_behind_what_the_engine_had_in_its_cache_they_begin_with_what_was_computed() -> None:
    frames = Written().take(entry(2, 2, {("a", 0): [1, 2]}))
    assert [(frame.start, frame.count, frame.cached) for frame in frames if frame.type == "gap"] == [
        (0, 2, True)
    ]
    assert watched(frames)[-1] == (2, [*NORM, "live:a"], ["live:a"])
    assert set(numbers(frames, "live:a")) == {2, 3}


def test_rows_are_kept_for_other_runs_without_them() -> None:
    run, kept = Written(), KeptRows(1 << 20)
    run.take(entry(0, 2 * BLOCK, {("a", 0): [1]}))
    ids, state = list(range(2 * BLOCK)), RunState.begin(RunOptions("r"), ())
    kept.keep(run.log, ids, state)
    assert kept.reach(NORM, ids, state) == 2 * BLOCK
    assert kept.reach([*NORM, "live:a"], ids, state) == 0


async def test_they_are_recorded_with_what_they_are() -> None:
    """By the server and by a client alike, and the file brings them back."""
    run = Written(layers=MODEL.layers)
    run.log.append(StartedEvent(PROMPT, MODEL.id, None, {}, {}, ASKED.sampling))
    for position, token in enumerate((5, 6), len(PROMPT.ids)):
        run.log.add_token(position, token, ".", None, None)
    run.take(entry(0, 4), entry(4, values={("a", 1): [5]}))
    stub = cast(Run, SimpleNamespace(id="r", adapter=None, asked=ASKED, log=run.log, facts=None))
    frames = await frames_of(stub)
    mine = recorded(stub, frames, ABOUT)
    assert_same(mine, await as_client(frames))
    assert [(metric.id, metric.label, metric.family) for metric in mine.info.metrics][1:] == [
        ("live:a", "a", "live")
    ]
    again = read_recording(recording_bytes(one_run(mine, "Hi?", made_by="", made_at=""))).runs[0]
    assert_same(mine, again)
    values = again.values("live:a")
    assert values[4].tolist() == pytest.approx([NAN, 5, NAN], nan_ok=True)
    assert np.isnan(values[:4]).all()
