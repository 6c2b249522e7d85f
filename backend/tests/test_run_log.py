"""The event log: however a reader lags, it gets everything once and in order, and `seq` keeps its word.

Also how much a log weighs, and how much of it anybody gets at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steersight.protocol.messages import (
    Alternatives,
    Applied,
    Gap,
    Lens,
    Rows,
    Tokens,
    VectorSetting,
    Watched,
)
from steersight.runs import log as module
from steersight.runs.beside import Beside, newest
from steersight.runs.budget import RowBudget, common_level
from steersight.runs.events import (
    SETTING_BYTES,
    STRENGTH_BYTES,
    AlternativesEvent,
    AppliedEvent,
    GapEvent,
    LensEvent,
    WatchedEvent,
)
from steersight.runs.log import RunLog

from .sent import sent


def since(log: RunLog, cursor: int, most_bytes: int | None = None) -> tuple[list[Any], int]:
    """The frames of the next events as a client has them, and the new cursor."""
    frames, end = log.frames_since(cursor, most_bytes)
    return sent(frames), end


# One letter per event: a token, rows of two positions, an applied, a change of what is watched.
histories = st.lists(st.sampled_from("traw"), max_size=60)

WATCHED = (["m"], ["m", "n", "o"], [])
"""What the rows of a log hold, in turns; every second time with entropies."""


def watch(log: RunLog, position: int) -> None:
    """From a position on with the next columns."""
    turn = sum(isinstance(event, WatchedEvent) for event in log.others) + 1
    log.rows.begin(WATCHED[turn % 3])
    log.append(WatchedEvent(position, WATCHED[turn % 3], None, bool(turn % 2), 0))


def grow(log: RunLog, kind: str) -> None:
    tokens, rows = len(log.tokens), len(log.rows)
    if kind == "t":
        log.add_token(tokens, tokens, f"<{tokens}>", None, None)
    elif kind == "r":
        turn = sum(isinstance(event, WatchedEvent) for event in log.others)
        values = np.full((2, len(WATCHED[turn % 3]), 3), rows, dtype="<f2")
        values[1] += 1
        nats = np.array([rows, rows + 1], dtype="<f2").tobytes() if turn % 2 else None
        log.add_rows(rows, [rows, rows + 1], values.tobytes(), nats)
    elif kind == "w":
        watch(log, rows)
    else:
        log.append(AppliedEvent(rows, rows))


def read(frames: list[Any]) -> tuple[list[int], list[int], int]:
    tokens: list[int] = []
    rows: list[int] = []
    applied = 0
    for frame in frames:
        if isinstance(frame, Tokens):
            assert frame.start == len(tokens)
            tokens += frame.ids
        elif isinstance(frame, Rows):
            assert frame.start == len(rows)
            assert frame.count == len(frame.revs)
            told = [one for one in frames if isinstance(one, Watched) and one.position <= frame.start]
            assert frame.metrics == (told[-1].metrics if told else WATCHED[0])
            values = np.frombuffer(frame.data, dtype="<f2").reshape(frame.count, len(frame.metrics), 3)
            assert (values == np.array(frame.revs)[:, None, None]).all()
            if told and told[-1].entropy:
                assert np.frombuffer(frame.entropy or b"", dtype="<f2").tolist() == frame.revs
            else:
                assert frame.entropy is None
            rows += frame.revs
        elif isinstance(frame, Applied):
            applied += 1
    return tokens, rows, applied


@given(histories, st.data())
def test_a_reader_that_lags_gets_everything_once(history: list[str], data: st.DataObject) -> None:
    log = RunLog("run", "id", ["m"], 3)
    cursor, frames = 0, []
    for kind in history:
        grow(log, kind)
        if data.draw(st.booleans()):
            fresh, cursor = since(log, cursor)
            frames += fresh
    fresh, cursor = since(log, cursor)
    frames += fresh
    tokens, rows, applied = read(frames)
    assert tokens == list(range(history.count("t")))
    assert rows == list(range(2 * history.count("r")))
    assert applied == history.count("a")
    assert cursor == log.end == len(history) + history.count("r")
    seqs = [frame.seq for frame in frames]
    assert seqs == sorted(seqs)


@given(histories, st.integers(0, 200))
def test_after_any_frame_its_seq_tells_what_is_still_missing(history: list[str], cut: int) -> None:
    """Lose the connection after any frame: what the log has since that frame's seq completes the rest."""
    log = RunLog("run", "id", ["m"], 3)
    for kind in history:
        grow(log, kind)
    frames, _ = since(log, 0)
    seen = frames[:cut]
    again, _ = since(log, seen[-1].seq if seen else 0)
    for position, frame in enumerate(frames[cut:]):
        assert frame.model_dump(exclude={"seq"}) in [f.model_dump(exclude={"seq"}) for f in again], position


def test_what_revisions_say_is_kept_within_bounds_and_settings_once() -> None:
    log = RunLog("run", "id", ["m"], 3)
    added: list[int] = []
    log.grew = added.append
    for rev in range(1, 1000):
        log.append(AppliedEvent(rev, rev, {"joy": rev / 1000}, {"joy": VectorSetting(scope="reply")}))
    assert log.size == sum(added) == 999 * STRENGTH_BYTES + SETTING_BYTES
    log.add_rows(0, [0], bytes(6))
    assert log.trim(0) == 1
    assert log.size == 999 * STRENGTH_BYTES + SETTING_BYTES, "what they say stays"
    names = [f"v{number}" for number in range(64)]
    for rev in range(1000, 1200):
        settings = {name: VectorSetting(first=rev) for name in names}
        log.append(AppliedEvent(rev, rev, dict.fromkeys(names, 0.5), settings))
    most = module.MAX_REVISION_BYTES
    assert most - 64 * (STRENGTH_BYTES + SETTING_BYTES) < log.size <= most
    frames = [frame for frame in since(log, 0)[0] if isinstance(frame, Applied)]
    assert [frame.rev for frame in frames] == list(range(1, 1200))
    whole = [frame for frame in frames if frame.strengths is not None]
    assert [frame.rev for frame in whole] == list(range(1, len(whole) + 1))
    assert whole[998].settings == {"joy": VectorSetting(scope="reply")}
    assert all(frame.settings is None for frame in frames[len(whole) :])


LAYERS = 4
CHANGES = 5
"""What is watched changes after so many positions."""


def columns_at(position: int) -> list[str]:
    return WATCHED[(position + 1) // CHANGES % 3]


Write = Callable[[RunLog], None]


def watched(rows: int) -> Iterator[Write]:
    """Tokens, rows, guesses and alternatives of so many positions, an event each; every position's guess is a
    token of its own, which is named there and never again by its kind."""
    for position in range(rows):
        ids = np.array([[position], [position // 2]], dtype="<i4")
        names = [(position, f"<{position}>")]
        guesses = LensEvent(position, [1, 3], ids, np.ones((2, 1), dtype="<f2"), names)
        yield partial(
            RunLog.add_token, position=position, token=position, text=f"<{position}>", logprob=None, rank=None
        )
        if position % CHANGES == CHANGES - 1:
            yield partial(watch, position=position)
        row = np.full((len(columns_at(position)), LAYERS), position, dtype="<f2").tobytes()
        yield partial(RunLog.add_rows, start=position, revs=[0], values=row)
        yield partial(RunLog.add_guesses, event=guesses)
        others = np.array([position, position // 3], dtype="<i4")
        alternatives = AlternativesEvent(position, others, np.zeros(2, dtype="<f4"), names)
        yield partial(RunLog.add_alternatives, event=alternatives)


def log_of(rows: int) -> RunLog:
    log = RunLog("run", "id", ["m"], LAYERS)
    for write in watched(rows):
        write(log)
    return log


class Client:
    """Keeps what comes; fails where a guess has no name."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.rows: set[int] = set()
        self.lost: set[int] = set()
        self.names: dict[str, dict[int, str]] = {"lens": {}, "alternatives": {}}
        self.beside: set[tuple[str, int]] = set()
        self.seq = 0

    def take(self, frames: list[Any]) -> None:
        for frame in frames:
            self.seq = max(self.seq, frame.seq)
            if isinstance(frame, Tokens):
                skip = len(self.tokens) - frame.start
                assert skip >= 0, "a token was lost"
                self.tokens += frame.ids[skip:]
            elif isinstance(frame, Rows):
                values = np.frombuffer(frame.data, dtype="<f2").reshape(
                    frame.count, len(frame.metrics), LAYERS
                )
                for position, row in enumerate(values, frame.start):
                    assert frame.metrics == columns_at(position)
                    assert (row == position).all()
                    self.rows.add(position)
            elif isinstance(frame, Gap):
                assert not frame.kept
                self.lost |= set(range(frame.start, frame.start + frame.count))
            elif isinstance(frame, Lens | Alternatives):
                names = self.names[frame.type]
                names.update(zip(frame.new_ids, frame.new_texts, strict=True))
                ids = np.frombuffer(frame.ids, dtype="<i4").reshape(frame.count, -1)
                for position, row in enumerate(ids.tolist(), frame.start):
                    self.beside.add((frame.type, position))
                    for token in row:
                        assert names[token] == f"<{token}>", "a guess without a name"


def read_all(log: RunLog, client: Client) -> None:
    cursor = client.seq
    while cursor < log.end:
        frames, cursor = since(log, cursor)
        client.take(frames)


@given(st.integers(1, 40), st.integers(0, 120), st.lists(st.integers(0, 1500), max_size=4))
def test_what_is_let_go_is_a_gap_to_who_has_not_had_it(rows: int, seen: int, weights: list[int]) -> None:
    log, client = RunLog("run", "id", ["m"], LAYERS), Client()
    for index, write in enumerate(watched(rows)):
        write(log)
        if index == seen:
            read_all(log, client)
    had = set(client.rows)
    for most in weights:
        before = log.size
        gone = log.trim(most)
        beside = [*log.guesses.events, *log.alternatives.events]
        assert log.size == log.rows.size + sum(event.size for event in beside) <= before
        assert log.size <= max(most, beside[-1].size + beside[0].size)
        assert gone >= 0
    assert log.rows.end == rows
    read_all(log, client)
    assert client.tokens == list(range(rows)), "a token was lost, doubled or reordered"
    assert client.rows | client.lost == set(range(rows))
    assert not client.lost & had, "rows that were had are called lost"
    again = Client()
    again.names = {kind: {token: f"<{token}>" for token in range(rows)} for kind in again.names}
    again.take(sent(log.rows_at(0, 4096, log.end)))
    assert again.lost == {p for p in range(rows) if p not in again.rows}
    assert again.rows == set(range(log.rows.gone, rows))
    assert again.beside >= {(kind, position) for kind in again.names for position in again.rows}


@given(
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 9), max_size=3)), max_size=12),
    st.integers(0, 12),
    st.booleans(),
)
def test_whoever_is_left_out_hands_its_names_on(
    history: list[tuple[bool, list[int]]], bound: int, let_go: bool
) -> None:
    """For a slow reader and for good alike: a token is named once, and may be meant by any later event."""
    held: Beside[AlternativesEvent] = Beside()
    for position, (there, names) in enumerate(history):
        if there:
            pairs = [(token, f"<{token}>") for token in names]
            nothing = np.zeros(2, dtype="<i4")
            held.append(position, AlternativesEvent(position, nothing, nothing.astype("<f4"), pairs))
    before = list(held.events)
    if let_go:
        held.let_go(bound - 1)
        found = held.events
        assert held.size == sum(event.size for event in found)
    else:
        found = newest(before, bound)
    assert [name for event in found for name in event.names] == [name for e in before for name in e.names]
    late = [event.position for event in before if event.position >= bound]
    assert [event.position for event in found][-len(late) or len(found) :] == late
    assert len(found) <= len(late) + 1


def test_who_catches_up_gets_batches_of_a_bounded_size() -> None:
    log = RunLog("run", "id", ["m"], 2048)
    for position in range(6000):
        log.add_token(position, position, "x", None, None)
        log.add_rows(position, [0], bytes(4096))
    cursor, tokens, rows, batches = 0, 0, 0, 0
    while cursor < log.end:
        frames, cursor = since(log, cursor)
        batches += 1
        assert sum(len(f.data) for f in frames if isinstance(f, Rows)) <= module.MAX_BYTES_AT_ONCE
        assert frames[-1].seq == cursor
        tokens += sum(len(f.ids) for f in frames if isinstance(f, Tokens))
        rows += sum(f.count for f in frames if isinstance(f, Rows))
    assert (tokens, rows) == (6000, 6000)
    assert batches == -(-log.size // module.MAX_BYTES_AT_ONCE)
    # So do the rows of a prompt, which are written together.
    log.add_rows(6000, [0] * 2000, bytes(2000 * 4096))
    frames, cursor = since(log, cursor)
    assert sum(f.count for f in frames) == module.MAX_BYTES_AT_ONCE // 4096
    assert cursor < log.end


def test_a_long_log_with_many_holes_costs_time_that_grows_with_its_length() -> None:
    def seconds(events: int) -> float:
        log = RunLog("run", "id", ["m"], 2)
        for position in range(0, events, 2):
            log.append(GapEvent(position, 1))
            log.add_rows(position + 1, [0], bytes(4))
        began = time.perf_counter()
        cursor = 0
        while cursor < log.end:
            frames, cursor = since(log, cursor)
            assert len(frames) <= module.MAX_EVENTS_AT_ONCE
        for start in range(0, events, 4096):
            log.rows_at(start, 256, log.end)
        since(log, 0, most_bytes=100)
        return time.perf_counter() - began

    seconds(1000)
    short, long = seconds(10_000), seconds(100_000)
    assert long < 40 * short, f"{short:.3f} s for 10,000 events, {long:.3f} s for 100,000"


def test_holes_that_touch_are_one_frame() -> None:
    log = RunLog("run", "id", ["m"], 2)
    for position in range(1000):
        log.add_rows(position, [0], bytes(4))
    assert log.trim(0) == 1000
    assert log.size == 0
    (gap,), _ = since(log, 0)
    assert isinstance(gap, Gap)
    assert (gap.start, gap.count, gap.kept) == (0, 1000, False)


@given(st.lists(st.integers(0, 100), max_size=8), st.integers(0, 500))
def test_the_common_level_takes_from_the_heaviest_only(sizes: list[int], most: int) -> None:
    level = common_level(sizes, most)
    cut = [min(size, level) for size in sizes]
    assert sum(cut) <= most or not sizes
    if sum(sizes) <= most:
        assert cut == sizes
    else:
        assert sum(min(size, level + 1) for size in sizes) > most


def test_a_log_that_is_light_keeps_its_rows() -> None:
    light, heavy = log_of(10), log_of(1000)
    told: list[int] = []
    budget = RowBudget(8000, lambda: [light, heavy], told.append)
    before = light.size
    budget.grew(8000)
    assert light.size == before
    assert light.size + heavy.size <= 8000
    assert told == [heavy.rows.gone]
    assert heavy.rows.gone > 0
