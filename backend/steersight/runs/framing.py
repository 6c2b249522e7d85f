"""A run's events as the frames in which they go out. Pure: which events, and in what order, `log.py` says.

Frames are maps here and not models; see `codec.encode`. Each has the `seq` of what its reader had before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..protocol.messages import Finished, VectorSetting
from .beside import grouped
from .events import AppliedEvent, FinishedEvent, PartEvent, QueuedEvent, StartedEvent, WatchedEvent

if TYPE_CHECKING:
    from ..protocol.codec import WireMap
    from .columns import RowColumns, TokenColumns
    from .events import AlternativesEvent, Event, LensEvent

MAX_ROWS_PER_FRAME = 256


@dataclass(frozen=True)
class Framing:
    """Makes the frames of one run."""

    run: str
    client_id: str
    metrics: list[str]
    """Those that its rows begin with."""
    layers: int

    def _frame(self, kind: str, seq: int, **fields: Any) -> WireMap:
        return {"type": kind, "run": self.run, "seq": seq, **fields}

    def gap(self, seq: int, start: int, stop: int, *, kept: bool, cached: bool = False) -> WireMap:
        """Rows of positions [start, stop) are left out."""
        return self._frame("gap", seq, start=start, count=stop - start, kept=kept, cached=cached)

    def first(self, others: list[Event], seq: int) -> list[WireMap]:
        """What goes before tokens."""
        frames = [
            self._frame(
                "started",
                seq,
                id=self.client_id,
                prompt=event.prompt.model_dump(),
                metrics=self.metrics,
                model=event.model,
                adapter=event.adapter,
                strengths=_copied(event.strengths),
                settings=_plain(event.settings),
                sampling=event.sampling and event.sampling.model_dump(),
                edits=list(event.edits),
                origin=event.origin,
            )
            for event in others
            if isinstance(event, StartedEvent)
        ]
        places = [event.position for event in others if isinstance(event, QueuedEvent)]
        if places:
            frames.append(self._frame("queued", seq, position=places[-1]))
        frames += [
            self._frame("part", seq, part=event.part, start=event.start)
            for event in others
            if isinstance(event, PartEvent)
        ]
        frames += [
            self._frame(
                "watched",
                seq,
                position=event.position,
                metrics=event.metrics,
                lens=None if event.lens is None else event.lens.model_dump(),
                entropy=event.entropy,
                alternatives=event.alternatives,
                live=[metric.model_dump() for metric in event.live],
            )
            for event in others
            if isinstance(event, WatchedEvent)
        ]
        return frames

    def add_tokens(self, frames: list[WireMap], tokens: TokenColumns, cursor: int, end: int) -> None:
        """Those with numbers cursor + 1 to `end`, as one frame where there are any."""
        first, last = tokens.between(cursor, end)
        if first == last:
            return
        frames.append(
            {
                "type": "tokens",
                "run": self.run,
                "seq": cursor,
                "start": tokens.start + first,
                "ids": tokens.ids[first:last].tolist(),
                "texts": tokens.texts[first:last],
                "logprobs": tokens.logprobs[first:last],
                "ranks": tokens.ranks[first:last],
            }
        )

    def add_rows(self, frames: list[WireMap], rows: RowColumns, first: int, last: int, seq: int) -> None:
        """The rows [first, last), which are held."""
        for begin, end in rows.stretches(first, last, MAX_ROWS_PER_FRAME):
            frames.append(
                {
                    "type": "rows",
                    "run": self.run,
                    "seq": seq,
                    "start": rows.positions[begin],
                    "count": end - begin,
                    "revs": rows.revs[begin:end].tolist(),
                    "metrics": rows.segment(begin).metrics,
                    "layers": self.layers,
                    "dtype": "f2",
                    "data": rows.values_of(begin, end),
                    "entropy": rows.entropy_of(begin, end),
                }
            )

    def beside(self, lens: list[LensEvent], alternatives: list[AlternativesEvent], seq: int) -> list[WireMap]:
        """What stands beside rows."""
        frames = [
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
            for group in grouped(lens)
        ]
        frames += [
            self._frame(
                "alternatives",
                seq,
                start=group[0].position,
                count=len(group),
                top=len(group[0].ids),
                ids=b"".join([event.ids.tobytes() for event in group]),
                logprobs=b"".join([event.logprobs.tobytes() for event in group]),
                new_ids=[token for event in group for token, _ in event.names],
                new_texts=[text for event in group for _, text in event.names],
            )
            for group in grouped(alternatives)
        ]
        return frames

    def last(self, others: list[Event], seq: int) -> list[WireMap]:
        """What goes behind rows."""
        frames: list[WireMap] = []
        for event in others:
            if isinstance(event, AppliedEvent):
                frames.append(
                    self._frame(
                        "applied",
                        seq,
                        rev=event.rev,
                        position=event.position,
                        strengths=_copied(event.strengths),
                        settings=_plain(event.settings),
                    )
                )
            elif isinstance(event, FinishedEvent):
                finished = Finished(
                    run=self.run, seq=seq, reason=event.reason, stop=event.stop, error=event.error,
                    usage=event.usage, timing=event.timing,
                )  # fmt: skip
                frames.append(finished.model_dump())
        return frames


def _copied(strengths: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if strengths is None else dict(strengths)


def _plain(settings: Mapping[str, VectorSetting] | None) -> dict[str, Any] | None:
    return None if settings is None else {name: setting.model_dump() for name, setting in settings.items()}
