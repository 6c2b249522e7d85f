"""The event log: however a reader lags, it gets everything once and in order, and `seq` keeps its word."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steersight.protocol.messages import Applied, Rows, RunEvent, Tokens
from steersight.runs.log import AppliedEvent, RowsEvent, RunLog, TokensEvent

# One letter per event: a token, rows of two positions, an applied.
histories = st.lists(st.sampled_from("tra"), max_size=60)


def grow(log: RunLog, kind: str) -> None:
    tokens = sum(len(e.ids) for e in log.events if isinstance(e, TokensEvent))
    rows = sum(len(e.revs) for e in log.events if isinstance(e, RowsEvent))
    if kind == "t":
        log.append(TokensEvent(tokens, [tokens], [f"<{tokens}>"], [None], [None]))
    elif kind == "r":
        values = np.full((2, 1, 3), rows, dtype="<f2")
        values[1] += 1
        log.append(RowsEvent(rows, [rows, rows + 1], values))
    else:
        log.append(AppliedEvent(rows, rows))


def read(frames: list[RunEvent]) -> tuple[list[int], list[int], int]:
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
            values = np.frombuffer(frame.data, dtype="<f2").reshape(frame.count, 1, 3)
            assert values[:, 0, 0].tolist() == frame.revs
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
            fresh, cursor = log.frames_since(cursor)
            frames += fresh
    fresh, cursor = log.frames_since(cursor)
    frames += fresh
    tokens, rows, applied = read(frames)
    assert tokens == list(range(history.count("t")))
    assert rows == list(range(2 * history.count("r")))
    assert applied == history.count("a")
    assert cursor == len(log.events)
    seqs = [frame.seq for frame in frames]
    assert seqs == sorted(seqs)


@given(histories, st.integers(0, 200))
def test_after_any_frame_its_seq_tells_what_is_still_missing(history: list[str], cut: int) -> None:
    """Lose the connection after any frame: what the log has since that frame's seq completes the rest."""
    log = RunLog("run", "id", ["m"], 3)
    for kind in history:
        grow(log, kind)
    frames, _ = log.frames_since(0)
    seen = frames[:cut]
    again, _ = log.frames_since(seen[-1].seq if seen else 0)
    for position, frame in enumerate(frames[cut:]):
        assert frame.model_dump(exclude={"seq"}) in [f.model_dump(exclude={"seq"}) for f in again], position
