"""A run's event log and how it becomes frames. Pure: no sockets, no engine, no clock.

Every event has a sequence number, 1 for `started`. A reader holds a cursor, the number of the last event it
has had, and asks for the frames since: events of one kind are merged, so a reader that lags gets fewer and
larger frames and never a token twice. `seq` of a frame says: every event up to and including this number
has been sent once this frame has. So of the frames of one batch only the last moves it.

The log is the only place where a run's past is kept. A reader's queue is its cursor, which has no size; what
a slow reader misses (`most_bytes`) is still here and can be asked for by position (`rows_at`). However much a
reader has to catch up with, it gets it in batches of a bounded size.

Rows and guesses are nearly all that a log weighs, and the oldest of them can be let go (`trim`). Events keep
their numbers then: a reader that has not had those rows finds a gap in their place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..protocol.codec import WireMap
from ..protocol.messages import Finished
from .events import (
    AppliedEvent,
    Event,
    FinishedEvent,
    GapEvent,
    LensEvent,
    QueuedEvent,
    RowsEvent,
    StartedEvent,
    TokenEvent,
    TrimmedEvent,
)

MAX_ROWS_PER_FRAME = 256
MAX_EVENTS_AT_ONCE = 4096
"""Events that one batch of frames is made of."""
MAX_BYTES_AT_ONCE = 4 << 20
"""Rows and guesses in one batch of frames; a single event may be larger."""


@dataclass
class RunLog:
    """The events of one run, in order."""

    run: str
    client_id: str
    metrics: list[str]
    layers: int
    events: list[Event] = field(default_factory=list)
    size: int = 0
    """Bytes of all rows and guesses, which are nearly all that a log weighs."""
    rows_end: int = 0
    """One past the newest position that has had a row."""
    grew: Callable[[int], None] = lambda _size: None
    """Called with the bytes of rows and guesses that were added."""
    _rows: list[RowsEvent] = field(default_factory=list)
    _rows_at: list[int] = field(default_factory=list)
    """Their indices in `events`."""
    _lens: list[LensEvent] = field(default_factory=list)
    _lens_at: list[int] = field(default_factory=list)

    def append(self, event: Event) -> None:
        """Add an event; its sequence number is the log's new length."""
        self.events.append(event)
        if isinstance(event, TokenEvent):
            return  # most of them
        if isinstance(event, RowsEvent):
            self._rows.append(event)
            self._rows_at.append(len(self.events) - 1)
            self.rows_end = event.start + len(event.revs)
        elif isinstance(event, LensEvent):
            self._lens.append(event)
            self._lens_at.append(len(self.events) - 1)
        else:
            return
        size = event.size
        self.size += size
        self.grew(size)

    def trim(self, most: int) -> int:
        """Let go of the oldest rows, with the guesses that belong to them, until the log weighs at most
        `most` bytes or holds none; returns how many rows went.

        The newest guess always stays: a token is named once in a run, and the names of what goes are handed
        to what stays.
        """
        rows, lens, size = 0, 0, self.size
        while size > most and rows < len(self._rows):
            row = self._rows[rows]
            rows, size = rows + 1, size - row.size
            while lens < len(self._lens) - 1 and self._lens[lens].position < row.start + len(row.revs):
                lens, size = lens + 1, size - self._lens[lens].size
        for index, row in zip(self._rows_at[:rows], self._rows, strict=False):
            self.events[index] = GapEvent(row.start, len(row.revs))
        for index in self._lens_at[:lens]:
            self.events[index] = TrimmedEvent()
        if lens:
            names = [name for event in self._lens[: lens + 1] for name in event.names]
            heir = self._lens[lens] = replace(self._lens[lens], names=names)
            self.events[self._lens_at[lens]] = heir
        gone = sum(len(row.revs) for row in self._rows[:rows])
        del self._rows[:rows], self._rows_at[:rows], self._lens[:lens], self._lens_at[:lens]
        self.size = size
        return gone

    @property
    def end(self) -> int:
        """Number of the newest event."""
        return len(self.events)

    def frames_since(self, cursor: int, most_bytes: int | None = None) -> tuple[list[WireMap], int]:
        """Frames for the next events after `cursor`, and the new cursor. Tokens go first: they must not wait.

        A batch ends after MAX_EVENTS_AT_ONCE events, or MAX_BYTES_AT_ONCE of rows and guesses; the rest is
        for the next one. With `most_bytes`, rows and guesses beyond so many bytes are left out instead, the
        oldest first, and `gap` frames say which; nothing else is ever left out.
        """
        end = self._batch_end(cursor, None if most_bytes is not None else MAX_BYTES_AT_ONCE)
        fresh = _Sorted(self.events[cursor:end])
        rows, lens = fresh.rows, fresh.lens
        skipped: list[tuple[int, int]] = []
        if most_bytes is not None:
            rows, lens, skipped = _newest(rows, lens, most_bytes)
        frames = [self._started(event, cursor) for event in fresh.started]
        if fresh.queued:
            frames.append(self._frame("queued", cursor, position=fresh.queued[-1].position))
        if fresh.tokens:
            frames.append(self._tokens(fresh.tokens, cursor))
        frames += [self._gap(cursor, start, stop, kept=False) for start, stop in _joined(fresh.lost)]
        frames += [self._gap(cursor, start, stop, kept=True) for start, stop in skipped]
        frames += self._row_frames(rows, cursor)
        frames += self._lens_frames(lens, cursor)
        frames += [self._last(event, cursor) for event in fresh.last]
        if frames:
            frames[-1]["seq"] = end
        return frames, end

    def _frame(self, kind: str, seq: int, **fields: Any) -> WireMap:
        return {"type": kind, "run": self.run, "seq": seq, **fields}

    def _batch_end(self, cursor: int, most_bytes: int | None) -> int:
        end = min(len(self.events), cursor + MAX_EVENTS_AT_ONCE)
        if most_bytes is None:
            return end
        held = 0
        for index in range(cursor, end):
            event = self.events[index]
            if isinstance(event, RowsEvent | LensEvent):
                held += event.size
                if held > most_bytes and index > cursor:
                    return index
        return end

    def rows_at(self, start: int, count: int, seq: int) -> list[WireMap]:
        """Frames of the rows of positions [start, start + count) once more, with the guesses that belong to
        them; `gap` frames for those that nobody can have. Rows still to come are not among them.
        """
        end = min(start + count, self.rows_end)
        found: list[RowsEvent] = []
        first = max(0, bisect_right(self._rows, start, key=lambda event: event.start) - 1)
        for event in self._rows[first:]:
            if event.start >= end:
                break
            if (part := event.between(start, end)) is not None:
                found.append(part)
        frames: list[WireMap] = []
        at = start
        for event in found:
            if event.start > at:
                frames.append(self._gap(seq, at, event.start, kept=False))
            at = event.start + len(event.revs)
        if at < end:
            frames.append(self._gap(seq, at, end, kept=False))
        frames += self._row_frames(found, seq)
        first, last = (
            bisect_left(self._lens, position, key=lambda event: event.position) for position in (start, end)
        )
        frames += self._lens_frames(self._lens[first:last], seq)
        return frames

    def _gap(self, seq: int, start: int, stop: int, *, kept: bool) -> WireMap:
        return self._frame("gap", seq, start=start, count=stop - start, kept=kept)

    def _started(self, event: StartedEvent, seq: int) -> WireMap:
        prompt = event.prompt.model_dump()
        return self._frame("started", seq, id=self.client_id, prompt=prompt, metrics=self.metrics)

    def _tokens(self, events: list[TokenEvent], seq: int) -> WireMap:
        return {
            "type": "tokens",
            "run": self.run,
            "seq": seq,
            "start": events[0].position,
            "ids": [event.token for event in events],
            "texts": [event.text for event in events],
            "logprobs": [event.logprob for event in events],
            "ranks": [event.rank for event in events],
        }

    def _row_frames(self, events: list[RowsEvent], seq: int) -> list[WireMap]:
        frames: list[WireMap] = []
        group: list[RowsEvent] = []
        end = whole = 0
        for event in events:
            count = len(event.revs)
            if group and (event.start != end or whole + count > MAX_ROWS_PER_FRAME):
                frames.append(self._rows_frame(group, seq))
                group, whole = [], 0
            group.append(event)
            end, whole = event.start + count, whole + count
        if group:
            frames.append(self._rows_frame(group, seq))
        return frames

    def _rows_frame(self, group: list[RowsEvent], seq: int) -> WireMap:
        revs = [rev for event in group for rev in event.revs]
        entropy = None
        if group[0].entropy is not None:
            entropy = b"".join([event.entropy.tobytes() for event in group if event.entropy is not None])
        return {
            "type": "rows",
            "run": self.run,
            "seq": seq,
            "start": group[0].start,
            "count": len(revs),
            "revs": revs,
            "metrics": self.metrics,
            "layers": self.layers,
            "dtype": "f2",
            "data": b"".join([event.values.tobytes() for event in group]),
            "entropy": entropy,
        }

    def _lens_frames(self, events: list[LensEvent], seq: int) -> list[WireMap]:
        groups: list[list[LensEvent]] = []
        for event in events:
            if groups and groups[-1][-1].position + 1 == event.position:
                groups[-1].append(event)
            else:
                groups.append([event])
        return [
            self._frame(
                "lens",
                seq,
                start=group[0].position,
                count=len(group),
                layers=group[0].layers,
                top=group[0].ids.shape[1],
                ids=b"".join([event.ids.tobytes() for event in group]),
                probabilities=b"".join([event.probabilities.tobytes() for event in group]),
                new_ids=[token for event in group for token, _ in event.names],
                new_texts=[text for event in group for _, text in event.names],
            )
            for group in groups
        ]

    def _last(self, event: AppliedEvent | FinishedEvent, seq: int) -> WireMap:
        if isinstance(event, AppliedEvent):
            return self._frame("applied", seq, rev=event.rev, position=event.position)
        frame = Finished(
            run=self.run, seq=seq, reason=event.reason, stop=event.stop, error=event.error,
            usage=event.usage, timing=event.timing,
        )  # fmt: skip
        return frame.model_dump()


class _Sorted:
    """Events by what becomes of them, each kind in its order."""

    def __init__(self, events: list[Event]) -> None:
        self.started: list[StartedEvent] = []
        self.queued: list[QueuedEvent] = []
        self.tokens: list[TokenEvent] = []
        self.rows: list[RowsEvent] = []
        self.lens: list[LensEvent] = []
        self.lost: list[tuple[int, int]] = []
        """Ranges [start, end) of positions whose rows nobody can have."""
        self.last: list[AppliedEvent | FinishedEvent] = []
        for event in events:
            if isinstance(event, TokenEvent):
                self.tokens.append(event)
            elif isinstance(event, RowsEvent):
                self.rows.append(event)
            elif isinstance(event, LensEvent):
                self.lens.append(event)
            elif isinstance(event, AppliedEvent | FinishedEvent):
                self.last.append(event)
            elif isinstance(event, GapEvent):
                self.lost.append((event.start, event.start + event.count))
            elif isinstance(event, StartedEvent):
                self.started.append(event)
            elif isinstance(event, QueuedEvent):
                self.queued.append(event)


def _newest(
    rows: list[RowsEvent], lens: list[LensEvent], most_bytes: int
) -> tuple[list[RowsEvent], list[LensEvent], list[tuple[int, int]]]:
    """The newest of both that weigh at most `most_bytes` together (the newest rows at any weight), and the
    ranges [start, end) of positions that were left out.
    """
    weights = {event.position: event.size for event in lens}
    held, first = 0, len(rows)
    while first > 0:
        event = rows[first - 1]
        held += event.size + sum(weights.get(event.start + i, 0) for i in range(len(event.revs)))
        if held > most_bytes and first < len(rows):
            break
        first -= 1
    if first == 0:
        return rows, lens, []
    skipped = _joined((event.start, event.start + len(event.revs)) for event in rows[:first])
    bound = rows[first].start
    kept = [event for event in lens if event.position >= bound]
    # A token is named once in a run: the names of what is left out go with what is not.
    names = [name for event in lens if event.position < bound for name in event.names]
    if names and not kept:
        kept = [lens[-1]]
        names = [name for event in lens[:-1] for name in event.names]
    if names:
        kept = [replace(kept[0], names=[*names, *kept[0].names]), *kept[1:]]
    return rows[first:], kept, skipped


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges [start, end), those that touch as one."""
    out: list[tuple[int, int]] = []
    for start, end in ranges:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out
