"""A reader's place in a log: what a slow one misses is named exactly and can be had again."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersight.protocol.codec import FrameError
from steersight.protocol.messages import Gap, Lens, Prompt, Rows, Tokens
from steersight.runs.events import GapEvent, LensEvent, QueuedEvent, StartedEvent
from steersight.runs.log import RunLog
from steersight.ws.feed import MAX_ASKED, Feed

from .sent import sent

LAYERS = 3
ROW_BYTES = LAYERS * 2


Write = Callable[[RunLog], None]


def written(rows: int, *, lens: bool = False, lost: frozenset[int] = frozenset()) -> Iterator[Write]:
    """The events of a run whose row p holds the number p; positions in `lost` never came from the engine."""
    yield partial(RunLog.append, event=StartedEvent(Prompt(ids=[0], texts=[""], spans=[])))
    for position in range(rows):
        if position in lost:
            yield partial(RunLog.append, event=GapEvent(position, 1))
            continue
        values = np.full((1, 1, LAYERS), position, dtype="<f2").tobytes()
        yield partial(RunLog.add_rows, start=position, revs=[position], values=values)
        if lens:
            ids = np.array([[position]], dtype="<i4")
            names = [(position, f"<{position}>")]
            guesses = LensEvent(position, [2], ids, np.ones((1, 1), dtype="<f2"), names)
            yield partial(RunLog.add_guesses, event=guesses)
        yield partial(
            RunLog.add_token,
            position=1 + position,
            token=position,
            text=f"<{position}>",
            logprob=None,
            rank=None,
        )


def log_of(rows: int, *, lost: frozenset[int] = frozenset()) -> RunLog:
    log = RunLog("run", "id", ["m"], LAYERS)
    for write in written(rows, lost=lost):
        write(log)
    return log


class Reader:
    """Keeps what a client would keep."""

    def __init__(self) -> None:
        self.rows: dict[int, float] = {}
        self.missing: set[int] = set()
        self.lost: set[int] = set()
        self.tokens: list[int] = []
        self.names: dict[int, str] = {}
        self.guesses: dict[int, str] = {}

    def take(self, frames: list[Any]) -> None:
        for frame in frames:
            match frame:
                case Rows():
                    values = np.frombuffer(frame.data, dtype="<f2").reshape(frame.count, LAYERS)
                    for offset in range(frame.count):
                        assert frame.revs[offset] == values[offset, 0]
                        self.rows[frame.start + offset] = float(values[offset, 0])
                        self.missing.discard(frame.start + offset)
                case Gap():
                    span = set(range(frame.start, frame.start + frame.count))
                    (self.missing if frame.kept else self.lost).update(span)
                case Tokens():
                    assert frame.start == 1 + len(self.tokens)
                    self.tokens += frame.ids
                case Lens():
                    self.names.update(zip(frame.new_ids, frame.new_texts, strict=True))
                    for offset, token in enumerate(np.frombuffer(frame.ids, dtype="<i4").tolist()):
                        self.guesses[frame.start + offset] = self.names[token]
                case _:
                    pass


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=8), st.booleans())
def test_a_lagging_reader_misses_rows_and_nothing_else(
    total: int, pauses: list[tuple[int, bool]], lens: bool
) -> None:
    growing = RunLog("run", "id", ["m"], LAYERS)
    feed, reader = Feed(growing), Reader()
    events = written(total, lens=lens)
    for count, lags in pauses:
        for _, write in zip(range(count * 3), events, strict=False):
            write(growing)
        reader.take(sent(feed.take(4 * ROW_BYTES if lags else None)))
    for write in events:
        write(growing)
    reader.take(sent(feed.take(2 * ROW_BYTES)))
    assert reader.tokens == list(range(total)), "a token was lost, doubled or reordered"
    assert reader.rows.keys() | reader.missing == set(range(total))
    assert not reader.rows.keys() & reader.missing, "a row that came was called missing"
    assert reader.lost == set()
    for position in sorted(reader.missing):
        feed.ask(position, 1)
        reader.take(sent(feed.take()))
    assert reader.rows == {position: float(position) for position in range(total)}
    assert feed.idle
    if lens:
        assert reader.guesses == {position: f"<{position}>" for position in range(total)}


def test_what_is_new_goes_before_what_was_asked_for_again() -> None:
    log = log_of(2000)
    feed = Feed(log, log.end)
    feed.ask(0, 2000)
    first = sent(feed.take())
    assert sum(frame.count for frame in first if isinstance(frame, Rows)) == 256
    log.add_token(2001, 7, "<7>", None, None)
    assert [type(frame) for frame in sent(feed.take())] == [Tokens]
    reader = Reader()
    reader.take(first)
    while not feed.idle:
        reader.take(sent(feed.take()))
    assert len(reader.rows) == 2000


def test_rows_that_never_came_are_said_to_be_lost_for_good() -> None:
    log = log_of(9, lost=frozenset({0, 4, 5, 8}))
    reader = Reader()
    for start, count in ((0, 9), (3, 3), (4, 2), (8, 100), (50, 2)):
        feed = Feed(log, log.end)
        feed.ask(start, count)
        reader.take(sent(feed.take()))
        assert feed.idle
    assert sorted(reader.rows) == [1, 2, 3, 6, 7]
    # Position 8 is beyond the newest row: it may still come, for all that the log knows.
    assert reader.lost == {0, 4, 5}


def test_rows_far_beyond_the_run_cost_nothing() -> None:
    log = log_of(20)
    tracemalloc.start()
    try:
        for start, count in ((50_000_000, 4096), (2**53, 1), (19, 50_000_000), (0, 50_000_000)):
            feed = Feed(log, log.end)
            feed.ask(start, count)
            frames = sent(feed.take())
            assert sum(frame.count for frame in frames if isinstance(frame, Rows)) == max(0, 20 - start)
            assert not any(isinstance(frame, Gap) for frame in frames)
            assert feed.idle
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_rows_that_were_let_go_are_said_to_be_so_when_they_are_asked_for() -> None:
    log = log_of(20)
    feed, reader = Feed(log), Reader()
    reader.take(sent(feed.take(2 * ROW_BYTES)))
    assert reader.missing == set(range(18))
    log.trim(4 * ROW_BYTES)
    for position in sorted(reader.missing):
        feed.ask(position, 1)
    while not feed.idle:
        reader.take(sent(feed.take()))
    assert reader.lost == set(range(16))
    assert sorted(reader.rows) == [16, 17, 18, 19]


def test_only_so_much_can_be_asked_for_at_once() -> None:
    log = log_of(3)
    feed = Feed(log, log.end)
    for _ in range(MAX_ASKED):
        feed.ask(0, 3)
    with pytest.raises(FrameError, match="waiting already"):
        feed.ask(0, 3)


def test_only_the_newest_place_in_the_queue_is_told() -> None:
    log = log_of(0)
    for position in (3, 2, 1):
        log.append(QueuedEvent(position))
    frames: list[Any] = sent(Feed(log).take())
    assert [frame.position for frame in frames if frame.type == "queued"] == [1]
    assert frames[-1].seq == log.end
