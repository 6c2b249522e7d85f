"""A run's event log and how it becomes frames. Pure: no sockets, no engine, no clock.

Every event has a sequence number, 1 for `started`. A reader holds a cursor, the number of the last event it
has had, and asks for the frames since: events of one kind are merged, so a reader that lags gets fewer and
larger frames and never a token twice. `seq` of a frame says: every event up to and including this number
has been sent once this frame has. So of the frames of one batch only the last moves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..protocol.messages import (
    Applied,
    Finished,
    Gap,
    Lens,
    Prompt,
    Rows,
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


@dataclass(frozen=True)
class LensEvent:
    position: int
    layers: list[int]
    ids: NDArray[np.int32]
    """[layers, top]"""
    probabilities: NDArray[np.float16]
    """[layers, top]"""
    names: list[tuple[int, str]]


@dataclass(frozen=True)
class AppliedEvent:
    rev: int
    position: int


@dataclass(frozen=True)
class GapEvent:
    start: int
    count: int


@dataclass(frozen=True)
class FinishedEvent:
    reason: Literal["stop", "length", "cancelled", "error"]
    stop: str | None
    usage: Usage
    timing: Timing


@dataclass(frozen=True)
class StartedEvent:
    prompt: Prompt


Event = StartedEvent | TokensEvent | RowsEvent | LensEvent | AppliedEvent | GapEvent | FinishedEvent


@dataclass
class RunLog:
    """The events of one run, in order."""

    run: str
    client_id: str
    metrics: list[str]
    layers: int
    events: list[Event] = field(default_factory=list)

    def append(self, event: Event) -> None:
        """Add an event; its sequence number is the log's new length."""
        self.events.append(event)

    def frames_since(self, cursor: int) -> tuple[list[RunEvent], int]:
        """Frames for all events after `cursor`, and the new cursor."""
        fresh = self.events[cursor:]
        end = len(self.events)
        frames: list[RunEvent] = []
        frames.extend(self._started(event, cursor) for event in fresh if isinstance(event, StartedEvent))
        frames.extend(self._rows([event for event in fresh if isinstance(event, RowsEvent)], cursor))
        frames.extend(self._lens([event for event in fresh if isinstance(event, LensEvent)], cursor))
        for event in fresh:
            if isinstance(event, AppliedEvent):
                frames.append(Applied(run=self.run, seq=cursor, rev=event.rev, position=event.position))
            elif isinstance(event, GapEvent):
                frames.append(Gap(run=self.run, seq=cursor, start=event.start, count=event.count, kept=False))
        frames.extend(self._tokens([event for event in fresh if isinstance(event, TokensEvent)], cursor))
        frames.extend(
            Finished(
                run=self.run, seq=cursor, reason=event.reason, stop=event.stop,
                error=None, usage=event.usage, timing=event.timing,
            )
            for event in fresh
            if isinstance(event, FinishedEvent)
        )  # fmt: skip
        if frames:
            frames[-1] = frames[-1].model_copy(update={"seq": end})
        return frames, end

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

    def _rows(self, events: list[RowsEvent], seq: int) -> list[Rows]:
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

    def _lens(self, events: list[LensEvent], seq: int) -> list[Lens]:
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
