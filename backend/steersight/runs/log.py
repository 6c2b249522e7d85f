"""A run's event log and how it becomes frames. Pure: no sockets, no engine, no clock.

Every event has a sequence number, 1 for `started`. A reader holds a cursor, the number of the last event it
has had, and asks for the frames since: events of one kind are merged, so a reader that lags gets fewer and
larger frames and never a token twice. `seq` of a frame says: every event up to and including this number
has been sent once this frame has. So of the frames of one batch only the last moves it.

The log is the only place where a run's past is kept. A reader's queue is its cursor, which has no size; what
a slow reader misses (`most_bytes`) is still here and can be asked for by position (`rows_at`).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ..protocol.messages import (
    Applied,
    Finished,
    Gap,
    Lens,
    Prompt,
    Queued,
    Rows,
    RunError,
    RunEvent,
    Started,
    Timing,
    Tokens,
    Usage,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ROWS_PER_FRAME = 256


@dataclass(frozen=True)
class TokensEvent:
    start: int
    ids: list[int]
    texts: list[str]
    logprobs: list[float | None]
    ranks: list[int | None]


@dataclass(frozen=True)
class RowsEvent:
    start: int
    revs: list[int]
    values: NDArray[np.float16]
    """[rows, metrics, layers], transformed."""
    entropy: NDArray[np.float16] | None = None
    """[rows]"""

    @property
    def size(self) -> int:
        """Bytes on the wire, without the frame around them."""
        return int(self.values.nbytes) + (0 if self.entropy is None else int(self.entropy.nbytes))

    def between(self, start: int, end: int) -> RowsEvent | None:
        """The rows of positions [start, end), None where there are none."""
        first, last = max(start, self.start), min(end, self.start + len(self.revs))
        if first >= last:
            return None
        part = slice(first - self.start, last - self.start)
        return RowsEvent(
            first, self.revs[part], self.values[part], None if self.entropy is None else self.entropy[part]
        )


@dataclass(frozen=True)
class LensEvent:
    position: int
    layers: list[int]
    ids: NDArray[np.int32]
    """[layers, top]"""
    probabilities: NDArray[np.float16]
    """[layers, top]"""
    names: list[tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes on the wire, without the frame around them."""
        return int(self.ids.nbytes) + int(self.probabilities.nbytes)


@dataclass(frozen=True)
class AppliedEvent:
    rev: int
    position: int


@dataclass(frozen=True)
class QueuedEvent:
    position: int


@dataclass(frozen=True)
class GapEvent:
    """Rows that never came from the engine."""

    start: int
    count: int


@dataclass(frozen=True)
class FinishedEvent:
    reason: Literal["stop", "length", "cancelled", "error"]
    stop: str | None
    error: RunError | None
    usage: Usage
    timing: Timing


@dataclass(frozen=True)
class StartedEvent:
    prompt: Prompt


Event = (
    StartedEvent | QueuedEvent | TokensEvent | RowsEvent | LensEvent | AppliedEvent | GapEvent | FinishedEvent
)


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
    _rows: list[RowsEvent] = field(default_factory=list)
    _lens: list[LensEvent] = field(default_factory=list)

    def append(self, event: Event) -> None:
        """Add an event; its sequence number is the log's new length."""
        self.events.append(event)
        if isinstance(event, RowsEvent):
            self._rows.append(event)
            self.size += event.size
        elif isinstance(event, LensEvent):
            self._lens.append(event)
            self.size += event.size

    @property
    def end(self) -> int:
        """Number of the newest event."""
        return len(self.events)

    def frames_since(self, cursor: int, most_bytes: int | None = None) -> tuple[list[RunEvent], int]:
        """Frames for all events after `cursor`, and the new cursor. Tokens go first: they must not wait.

        With `most_bytes`, rows and guesses beyond so many bytes are left out, the oldest first, and `gap`
        frames say which; nothing else is ever left out.
        """
        fresh = self.events[cursor:]
        end = len(self.events)
        rows = [event for event in fresh if isinstance(event, RowsEvent)]
        lens = [event for event in fresh if isinstance(event, LensEvent)]
        skipped: list[tuple[int, int]] = []
        if most_bytes is not None:
            rows, lens, skipped = _newest(rows, lens, most_bytes)
        frames: list[RunEvent] = []
        frames.extend(self._started(event, cursor) for event in fresh if isinstance(event, StartedEvent))
        waits = [event for event in fresh if isinstance(event, QueuedEvent)]
        frames.extend(Queued(run=self.run, seq=cursor, position=event.position) for event in waits[-1:])
        frames.extend(self._tokens([event for event in fresh if isinstance(event, TokensEvent)], cursor))
        frames.extend(
            Gap(run=self.run, seq=cursor, start=start, count=stop - start, kept=True)
            for start, stop in skipped
        )
        frames.extend(self._row_frames(rows, cursor))
        frames.extend(self._lens_frames(lens, cursor))
        for event in fresh:
            if isinstance(event, AppliedEvent):
                frames.append(Applied(run=self.run, seq=cursor, rev=event.rev, position=event.position))
            elif isinstance(event, GapEvent):
                frames.append(self._lost(event.start, event.count, cursor))
            elif isinstance(event, FinishedEvent):
                frames.append(
                    Finished(
                        run=self.run, seq=cursor, reason=event.reason, stop=event.stop, error=event.error,
                        usage=event.usage, timing=event.timing,
                    )
                )  # fmt: skip
        if frames:
            frames[-1] = frames[-1].model_copy(update={"seq": end})
        return frames, end

    def rows_at(self, start: int, count: int, seq: int) -> list[RunEvent]:
        """Frames of the rows of positions [start, start + count) once more, with the guesses that belong to
        them; `gap` frames for those that never came from the engine. Rows still to come are not among them.
        """
        end = min(start + count, self.rows_end)
        found: list[RowsEvent] = []
        first = max(0, bisect_right(self._rows, start, key=lambda event: event.start) - 1)
        for event in self._rows[first:]:
            if event.start >= end:
                break
            if (part := event.between(start, end)) is not None:
                found.append(part)
        frames: list[RunEvent] = []
        at = start
        for event in found:
            if event.start > at:
                frames.append(self._lost(at, event.start - at, seq))
            at = event.start + len(event.revs)
        if at < end:
            frames.append(self._lost(at, end - at, seq))
        frames.extend(self._row_frames(found, seq))
        lens = self._lens[bisect_right(self._lens, start - 1, key=lambda event: event.position) :]
        frames.extend(self._lens_frames([event for event in lens if event.position < end], seq))
        return frames

    @property
    def rows_end(self) -> int:
        """One past the newest position that has a row."""
        return self._rows[-1].start + len(self._rows[-1].revs) if self._rows else 0

    def _lost(self, start: int, count: int, seq: int) -> Gap:
        return Gap(run=self.run, seq=seq, start=start, count=count, kept=False)

    def _started(self, event: StartedEvent, seq: int) -> Started:
        return Started(run=self.run, seq=seq, id=self.client_id, prompt=event.prompt, metrics=self.metrics)

    def _tokens(self, events: list[TokensEvent], seq: int) -> list[Tokens]:
        if not events:
            return []
        return [
            Tokens(
                run=self.run,
                seq=seq,
                start=events[0].start,
                ids=[token for event in events for token in event.ids],
                texts=[text for event in events for text in event.texts],
                logprobs=[logprob for event in events for logprob in event.logprobs],
                ranks=[rank for event in events for rank in event.ranks],
            )
        ]

    def _row_frames(self, events: list[RowsEvent], seq: int) -> list[Rows]:
        frames: list[Rows] = []
        group: list[RowsEvent] = []
        for event in events:
            whole = sum(len(member.revs) for member in group)
            if group and (
                event.start != group[0].start + whole or whole + len(event.revs) > MAX_ROWS_PER_FRAME
            ):
                frames.append(self._row_frame(group, seq))
                group = []
            group.append(event)
        if group:
            frames.append(self._row_frame(group, seq))
        return frames

    def _row_frame(self, group: list[RowsEvent], seq: int) -> Rows:
        revs = [rev for event in group for rev in event.revs]
        return Rows(
            run=self.run,
            seq=seq,
            start=group[0].start,
            count=len(revs),
            revs=revs,
            metrics=self.metrics,
            layers=self.layers,
            data=b"".join(event.values.tobytes() for event in group),
            entropy=None
            if group[0].entropy is None
            else b"".join(event.entropy.tobytes() for event in group if event.entropy is not None),
        )

    def _lens_frames(self, events: list[LensEvent], seq: int) -> list[Lens]:
        groups: list[list[LensEvent]] = []
        for event in events:
            if groups and groups[-1][-1].position + 1 == event.position:
                groups[-1].append(event)
            else:
                groups.append([event])
        return [
            Lens(
                run=self.run,
                seq=seq,
                start=group[0].position,
                count=len(group),
                layers=group[0].layers,
                top=group[0].ids.shape[1],
                ids=b"".join(event.ids.tobytes() for event in group),
                probabilities=b"".join(event.probabilities.tobytes() for event in group),
                new_ids=[token for event in group for token, _ in event.names],
                new_texts=[text for event in group for _, text in event.names],
            )
            for group in groups
        ]


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
    skipped: list[tuple[int, int]] = []
    for event in rows[:first]:
        end = event.start + len(event.revs)
        if skipped and skipped[-1][1] == event.start:
            skipped[-1] = (skipped[-1][0], end)
        else:
            skipped.append((event.start, end))
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
