"""From a step's entries to a run's log: slices of what the worker sent, in the order of positions.

The engine releases an entry only when its token is known to belong to the reply (`engine/reply.py`), so
everything that comes here is written. Invariant: the last row in the log, with its guesses and its
`applied`, is that of position prompt + reply - 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..engine.step import BARE, NO_TOKEN
from ..metrics import LENS_METRICS
from .events import AlternativesEvent, GapEvent, LensEvent
from .kept import Prefix
from .live import LiveColumns
from .log import RunLog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engine.reply import Entry
    from ..engine.step import Alternatives, Step
    from ..telemetry import Telemetry
    from ..text.pieces import TokenTexts
    from .watching import Watching


class RowWriter:
    """Writes one run's rows and gaps, and what stands beside rows, into its log."""

    def __init__(
        self, log: RunLog, watching: Watching, first_row: int, *, texts: TokenTexts, telemetry: Telemetry,
        applied: Callable[[int, int, bool], None], read: Callable[[int, int, int], Iterable[Prefix]],
    ) -> None:  # fmt: skip
        """
        Args:
            log: of the run.
            watching: what it begins with.
            first_row: rows of positions below this are not wanted.
            texts: the text of any token.
            telemetry: counts rows.
            applied: told a revision and its position when the first row of it is written, and whether that
                is where it came into force: not where rows before it were lost or not wanted.
            read: gives the rows of positions from one to before another, which the engine had in its cache,
                as computed with a revision.
        """
        self._log = log
        self._texts = texts
        self._telemetry = telemetry
        self._applied = applied
        self._read = read
        self._began = False
        self.watching = watching
        """What the rows that are written are computed with."""
        # The engine reads for all runs of a step together: rows can hold layers that this one did not ask
        # for.
        self._layers = watching.lens_layers(log.layers)
        self._asked: dict[int, Watching] = {}
        """By number, what somebody asked for and no entry has shown yet."""
        self._live = LiveColumns(log.layers)
        self._untold = False
        """Whether no row has been written since the columns of rows have changed."""
        self._named: set[int] = set()
        self._named_alternatives: set[int] = set()
        self._end = first_row
        self.revs_seen = 0
        """The newest revision that a written row has."""

    def expect(self, watching: Watching) -> None:
        """What the run is watched with is about to change; entries will say from where."""
        self._asked[watching.number] = watching

    def _change(self, number: int) -> None:
        """From this entry on rows are computed with what was asked for by this number."""
        found = self._asked.pop(number)
        # What it replaced before anything was computed with it never comes.
        self._asked = {other: asked for other, asked in self._asked.items() if other > number}
        self.watching = found
        self._layers = found.lens_layers(self._log.layers)
        self._begin_columns()

    def _begin_columns(self) -> None:
        """Rows from now on have what the run is watched with, and then what its blocks have emitted."""
        watching, live = self.watching, self._live
        columns = [*watching.columns, *[None] * len(live)]
        self._log.rows.begin([*watching.metrics, *live.metrics], columns)
        self._untold = True

    def _tell(self, position: int) -> None:
        """Before the first row that is computed so."""
        if self._untold:
            self._untold = False
            event, live = self.watching.event(position), self._live
            if len(live):
                event = replace(event, metrics=[*event.metrics, *live.metrics], live=live.described)
            self._log.append(event)

    def take(self, entry: Entry) -> None:
        """Write the rows of an entry, those that are not there yet."""
        if entry.step is not None and entry.watch != self.watching.number:
            self._change(entry.watch)
        skip = self._end - entry.start
        hole = not self._began and self._end > 0
        if skip < 0:
            hole = self._began
            if hole:
                self.close(entry.start)
            else:
                self._write_prefix(entry.start, entry.revisions[0] if entry.revisions else 0)
            skip = 0
        self._began = True
        revs = entry.revisions[skip:] if skip else entry.revisions
        if revs:
            self._take_rows(entry, skip, revs, hole=hole)
        step = entry.step
        if step is not None and step.alternatives and entry.token != NO_TOKEN:
            # Also of the prompt's last token where the prompt's rows were not asked for.
            self._write_alternatives(step.alternatives, entry.place, entry.end - 1)

    def _take_rows(self, entry: Entry, skip: int, revs: list[int], *, hole: bool) -> None:
        start, step = self._end, entry.step
        if step is not None and self._live.heard(step.emitted, entry.place):
            self._begin_columns()
        self._tell(start)
        if self._lacks_rows(entry):
            self.close(entry.end)
        else:
            self._telemetry.rows_written(len(revs))
            if self._has_numbers and step is not None:
                self._write(step, entry, skip, start, revs)
            elif self.watching.alternatives:
                self._log.add_rows(start, revs, b"")
            if self.watching.lens and step is not None and step.guesses is not None:
                self._write_guesses(step, entry.place, entry.end - 1)
            self._end = entry.end
        if revs[-1] > self.revs_seen:  # revisions never fall within a run
            for position, rev in enumerate(revs, start):
                if rev > self.revs_seen:
                    self.revs_seen = rev
                    self._applied(rev, position, not (hole and position == start))

    def _lacks_rows(self, entry: Entry) -> bool:
        """Whether what was asked for of an entry's rows has not come."""
        if self.watching.numbers:
            return entry.step is None or entry.first == BARE
        anything = bool(self.watching.alternatives) or self._has_numbers
        return anything and (entry.step is None or entry.step.lost)

    @property
    def _has_numbers(self) -> bool:
        """Whether rows have any."""
        return self.watching.numbers or len(self._live) > 0

    def _write_prefix(self, until: int, rev: int) -> None:
        """The run begins behind what the engine had in its cache, which was computed as with `rev`."""
        self._tell(self._end)
        for start, end, values in self._read(self._end, until, rev) if self.watching.numbers else ():
            if values is None:
                self._log.append(GapEvent(start, end - start, cached=True))
                continue
            revs = [rev] * len(values)
            self._telemetry.rows_written(len(revs))
            nats = self._nothing(len(revs)).tobytes() if self.watching.entropy else None
            self._log.add_rows(start, revs, values.tobytes(), nats)
            if rev > self.revs_seen:
                self.revs_seen = rev
                self._applied(rev, start, True)
        self._end = until

    def close(self, until: int) -> None:
        """Say of the rows before `until` that are not here that they never come."""
        if (count := until - self._end) > 0:
            self._log.append(GapEvent(self._end, count))
            self._telemetry.rows_dropped(count)
            self._end = until

    def _write(self, step: Step, entry: Entry, skip: int, start: int, revs: list[int]) -> None:
        # Copied: a slice would keep the numbers of all runs of its step for as long as this log is kept.
        rows = slice(entry.first + skip, entry.first + skip + len(revs))
        nats = None
        if self.watching.entropy:
            nats = (self._nothing(len(revs)) if step.entropy is None else step.entropy[rows]).tobytes()
        mine = self._mine(step, step.values[rows]) if self.watching.numbers else None
        if len(self._live):
            live = self._live.numbers(step.emitted, entry.place, len(revs))
            mine = live if mine is None else np.concatenate((mine, live), axis=1)
        self._log.add_rows(start, revs, b"" if mine is None else mine.tobytes(), nats)

    @staticmethod
    def _nothing(*shape: int) -> NDArray[np.float16]:
        return np.full(shape, np.nan, dtype="<f2")

    def _mine(self, step: Step, found: NDArray[np.float16]) -> NDArray[np.float16]:
        """Of rows of a step this run's metrics, [rows, metrics, layers]; NaN where there are none."""
        metrics = self.watching.metrics
        if step.metrics == metrics and not self._layers:
            return found
        mine = self._nothing(len(found), len(metrics), self._log.layers)
        for column, name in enumerate(metrics):
            if name not in step.metrics:
                continue  # it has failed since this run began
            theirs = found[:, step.metrics.index(name)]
            if name in LENS_METRICS:
                mine[:, column, self._layers] = theirs[:, self._layers]
            else:
                mine[:, column] = theirs
        return mine

    def _write_guesses(self, step: Step, place: int, position: int) -> None:
        guesses, lens = step.guesses, self.watching.lens
        if guesses is None or lens is None:
            return
        at = int(np.searchsorted(guesses.entries, place))
        if at == len(guesses.entries) or guesses.entries[at] != place:
            return
        layers = [guesses.layers.index(layer) for layer in self._layers]
        ids = guesses.ids[at, layers, : lens.top]
        fresh = sorted(set(ids.ravel().tolist()) - self._named)
        self._named.update(fresh)
        self._log.add_guesses(
            LensEvent(
                position=position,
                layers=self._layers,
                ids=ids,
                probabilities=guesses.probabilities[at, layers, : lens.top],
                names=[(token, self._texts.alone(token)) for token in fresh],
            )
        )

    def _write_alternatives(self, found: Alternatives, place: int, position: int) -> None:
        at, top = int(np.searchsorted(found.entries, place)), self.watching.alternatives
        if not top or at == len(found.entries) or found.entries[at] != place:
            return
        ids = found.ids[at, :top].copy()
        fresh = sorted(set(ids.tolist()) - self._named_alternatives)
        self._named_alternatives.update(fresh)
        self._log.add_alternatives(
            AlternativesEvent(
                position=position,
                ids=ids,
                logprobs=found.logprobs[at, :top].copy(),
                names=[(token, self._texts.alone(token)) for token in fresh],
            )
        )
