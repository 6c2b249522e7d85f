"""A run's event log, and what of it goes to whom. Pure: no sockets, no engine, no clock.

Every event has a sequence number, 1 for `started`. A reader holds a cursor, the number of the last event it
has had, and asks for the frames since: events of one kind are merged, so a reader that lags gets fewer and
larger frames and never a token twice. `seq` of a frame says: every event up to and including this number
has been sent once this frame has. So of the frames of one batch only the last moves it.

The log is the only place where a run's past is kept. A reader's queue is its cursor, which has no size; what
a slow reader misses (`most_bytes`) is still here and can be asked for by position (`rows_at`). However much a
reader has to catch up with, it gets it in batches of a bounded size.

Tokens and rows, nearly all events, lie in columns (`columns.py`); the others are objects (`events.py`).
Rows and what stands beside them (`beside.py`) are nearly all that a log weighs, and the oldest of them can
be let go (`trim`). Events keep their numbers then: a reader that has not had those rows finds a gap in their
place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..protocol.codec import WireMap
from .beside import Beside, newest
from .columns import Columns, RowColumns, TokenColumns
from .events import (
    SETTING_BYTES,
    STRENGTH_BYTES,
    AlternativesEvent,
    AppliedEvent,
    Event,
    GapEvent,
    LensEvent,
)
from .framing import Framing

if TYPE_CHECKING:
    from ..protocol.messages import VectorSetting

MAX_EVENTS_AT_ONCE = 4096
"""Events that one batch of frames is made of."""
MAX_BYTES_AT_ONCE = 4 << 20
"""Rows and what stands beside them in one batch of frames, if one row is not more."""
MAX_REVISION_BYTES = 4 << 20
"""What a run's revisions say; of those beyond it the log keeps only that they came into force. A slider that
is dragged comes nowhere near: ten thousand changes of four vectors fit."""

Range = tuple[int, int]
"""Positions [start, end)."""


@dataclass
class RunLog:
    """The events of one run, in order."""

    run: str
    client_id: str
    metrics: list[str]
    """Those that its rows begin with; a change of what is watched begins others (`begin`)."""
    layers: int
    columns: Columns = ()
    """What those metrics are known by; see `RowColumns`."""
    end: int = 0
    """Number of the newest event."""
    size: int = 0
    """Bytes of all rows and of what stands beside them, which is nearly all that a log weighs, and of what
    revisions say."""
    grew: Callable[[int], None] = lambda _size: None
    """Called with the bytes that were added."""
    tokens: TokenColumns = field(default_factory=TokenColumns)
    rows: RowColumns = field(init=False)
    guesses: Beside[LensEvent] = field(default_factory=Beside)
    alternatives: Beside[AlternativesEvent] = field(default_factory=Beside)
    others: list[Event] = field(default_factory=list)
    """All events that are neither tokens, nor rows, nor beside them."""
    _other_numbers: list[int] = field(default_factory=list)
    _cached: list[GapEvent] = field(default_factory=list)
    """Of `others` those whose rows were not computed again; a few, at the beginning."""
    _revision_bytes: int = 0
    """Of `size`, what the revisions say: it stays when rows are let go."""
    _settings: Mapping[str, VectorSetting] | None = None
    """Those of the newest revision that was kept."""

    def __post_init__(self) -> None:
        self.rows = RowColumns(self.metrics, self.columns)
        self._framing = Framing(self.run, self.client_id, self.metrics, self.layers)

    # ------------------------------------------------------------ writing

    def add_token(
        self, position: int, token: int, text: str, logprob: float | None, rank: int | None
    ) -> None:
        """The reply's next token."""
        self.end += 1
        self.tokens.append(self.end, position, token, text, logprob, rank)

    def add_rows(self, start: int, revs: Sequence[int], values: bytes, entropy: bytes | None = None) -> None:
        """Rows of consecutive positions, an event each, with the columns begun last; see
        `RowColumns.append`."""
        size = self.rows.append(self.end + 1, start, revs, values, entropy)
        self.end += len(revs)
        self.size += size
        self.grew(size)

    def add_guesses(self, event: LensEvent) -> None:
        """The guesses of one position."""
        self._grow(self.guesses.append(self.end + 1, event))

    def add_alternatives(self, event: AlternativesEvent) -> None:
        """The alternatives of one position."""
        self._grow(self.alternatives.append(self.end + 1, event))

    def _grow(self, size: int) -> None:
        """By one event of so many bytes."""
        self.end += 1
        self.size += size
        self.grew(size)

    def append(self, event: Event) -> None:
        """An event of any other kind."""
        if isinstance(event, AppliedEvent):
            event = self._weighed(event)
        self.end += 1
        self.others.append(event)
        self._other_numbers.append(self.end)
        if isinstance(event, GapEvent) and event.cached:
            self._cached.append(event)

    def _weighed(self, event: AppliedEvent) -> AppliedEvent:
        """The event as it is kept: settings that have not changed once for all revisions, and nothing of what
        a revision says where the log has enough of that."""
        if event.settings == self._settings:
            event = replace(event, settings=self._settings)
        size = STRENGTH_BYTES * len(event.strengths or ())
        if event.settings is not self._settings:
            size += SETTING_BYTES * len(event.settings or ())
        if self._revision_bytes + size > MAX_REVISION_BYTES:
            return replace(event, strengths=None, settings=None)
        self._settings = event.settings
        self._revision_bytes += size
        self.size += size
        self.grew(size)
        return event

    def trim(self, most: int) -> int:
        """Let go of the oldest rows, with what stands beside them, until the log weighs at most `most` bytes
        or holds none; returns how many rows went.
        """
        rows, before = self.rows, self.rows.gone
        while self.size > most and rows.gone < len(rows):
            # No row weighs more: it takes so many rows at least.
            rows.let_go(min(len(rows) - rows.gone, -(-(self.size - most) // max(1, self._weight))))
            self.guesses.let_go(rows.positions[rows.gone - 1])
            self.alternatives.let_go(rows.positions[rows.gone - 1])
            self.size = rows.size + self.guesses.size + self.alternatives.size + self._revision_bytes
        return rows.gone - before

    @property
    def _weight(self) -> int:
        """Bytes that a row and what stands beside it have at most."""
        return self.rows.width + self.guesses.heaviest + self.alternatives.heaviest

    # ------------------------------------------------------------ reading

    def frames_since(self, cursor: int, most_bytes: int | None = None) -> tuple[list[WireMap], int]:
        """Frames for the next events after `cursor`, and the new cursor. Tokens go first: they must not wait.

        A batch ends after MAX_EVENTS_AT_ONCE events, or MAX_BYTES_AT_ONCE of rows and what stands beside
        them; the rest is for the next one. With `most_bytes`, what of them is beyond so many bytes is left
        out instead, the oldest first, and `gap` frames say which; nothing else is ever left out.
        """
        end = min(self.end, cursor + MAX_EVENTS_AT_ONCE)
        if most_bytes is None:
            end = self._within_bytes(cursor, end)
        first, last = self.rows.between(cursor, end)
        lens = self.guesses.between(cursor, end)
        alternatives = self.alternatives.between(cursor, end)
        others = self._others_between(cursor, end)
        frames = self._framing.first(others, cursor) if others else []
        self._framing.add_tokens(frames, self.tokens, cursor, end)
        if others or first < self.rows.gone:
            gone = self._positions(first, min(last, self.rows.gone))
            never = [event for event in others if isinstance(event, GapEvent)]
            for cached in (True, False):
                lost = [(event.start, event.start + event.count) for event in never if event.cached is cached]
                joined = _joined(sorted(lost if cached else [*lost, *gone]))
                frames += [self._framing.gap(cursor, *one, kept=False, cached=cached) for one in joined]
            first = min(last, max(first, self.rows.gone))
        if most_bytes is not None:
            begin = self._newest(first, last, most_bytes)
            if begin > first:
                frames += [
                    self._framing.gap(cursor, *one, kept=True) for one in self._positions(first, begin)
                ]
                bound = self.rows.positions[begin]
                lens, alternatives = newest(lens, bound), newest(alternatives, bound)
            first = begin
        self._framing.add_rows(frames, self.rows, first, last, cursor)
        frames += self._framing.beside(lens, alternatives, cursor)
        if others:
            frames += self._framing.last(others, cursor)
        if frames:
            frames[-1]["seq"] = end
        return frames, end

    def rows_at(self, start: int, count: int, seq: int) -> list[WireMap]:
        """Frames of the rows of positions [start, start + count) once more, with what stands beside them;
        `gap` frames for those that nobody can have. Rows still to come are not among them.
        """
        end = min(start + count, self.rows.end)
        first, last = self.rows.at(start, end)
        first = min(last, max(first, self.rows.gone))
        frames: list[WireMap] = []
        at = start
        for begin, behind in self._positions(first, last):
            frames += self._never(seq, at, begin)
            at = behind
        frames += self._never(seq, at, end)
        self._framing.add_rows(frames, self.rows, first, last, seq)
        lens, alternatives = self.guesses.at(start, end), self.alternatives.at(start, end)
        return frames + self._framing.beside(lens, alternatives, seq)

    def _within_bytes(self, cursor: int, end: int) -> int:
        """The last event up to `end` with which a batch is not too heavy, if one row alone is not."""
        weight = self._weight
        if (end - cursor) * weight <= MAX_BYTES_AT_ONCE:
            return end  # nearly always
        first, last = self.rows.between(cursor, end)
        if (last - first) * weight <= MAX_BYTES_AT_ONCE:
            return end
        room = max(1, MAX_BYTES_AT_ONCE // weight)
        # What is between two rows goes with the one before.
        return self.rows.numbers[first + room] - 1

    def _others_between(self, cursor: int, end: int) -> list[Event]:
        numbers = self._other_numbers
        if not numbers or numbers[-1] <= cursor:
            return []  # nearly always
        return self.others[bisect_right(numbers, cursor) : bisect_right(numbers, end)]

    def _positions(self, first: int, last: int) -> list[Range]:
        """The positions of the rows [first, last), those that touch as one range."""
        positions = self.rows.positions
        return _joined((positions[a], positions[b - 1] + 1) for a, b in self.rows.stretches(first, last))

    def _newest(self, first: int, last: int, most_bytes: int) -> int:
        """Of the rows [first, last) the newest that weigh at most `most_bytes` together with what stands
        beside them, and the newest one at any weight: index of the first.
        """
        weight = self._weight
        if last - first <= 1 or (last - first) * weight <= most_bytes:
            return first
        return last - max(1, most_bytes // weight)

    def _never(self, seq: int, start: int, stop: int) -> list[WireMap]:
        """Gaps for positions [start, stop), of which there are no rows here."""
        frames: list[WireMap] = []
        at = start
        for event in self._cached:
            begin, end = max(at, event.start), min(stop, event.start + event.count)
            if begin < end:
                if begin > at:
                    frames.append(self._framing.gap(seq, at, begin, kept=False))
                frames.append(self._framing.gap(seq, begin, end, kept=False, cached=True))
                at = end
        if at < stop:
            frames.append(self._framing.gap(seq, at, stop, kept=False))
        return frames


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """Ascending ranges, those that touch as one."""
    out: list[Range] = []
    for start, end in ranges:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out
