"""From a step's entries to a run's log: slices of what the worker sent, in the order of positions.

The engine releases an entry only when its token is known to belong to the reply (`engine/reply.py`), so
everything that comes here is written. Invariant: the last row in the log, with its guesses and its
`applied`, is that of position prompt + reply - 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..engine.step import BARE, NO_TOKEN
from ..metrics import LENS_METRICS
from ..metrics.logit_lens import lens_layers
from .events import AlternativesEvent, GapEvent, LensEvent
from .kept import Prefix
from .log import RunLog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engine.reply import Entry
    from ..engine.step import Alternatives, Step
    from ..protocol.messages import Start
    from ..telemetry import Telemetry
    from ..text.pieces import TokenTexts


class RowWriter:
    """Writes one run's rows and gaps, and what stands beside rows, into its log."""

    def __init__(
        self, log: RunLog, start: Start, first_row: int, *, texts: TokenTexts, telemetry: Telemetry,
        applied: Callable[[int, int, bool], None], read: Callable[[int, int, int], Iterable[Prefix]],
    ) -> None:  # fmt: skip
        """
        Args:
            log: of the run.
            start: what its client asked for.
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
        self._entropy = start.entropy
        self._numbers = bool(log.metrics or start.entropy)
        self._top = start.lens.top if start.lens else 0
        # The engine reads for all runs of a step together: rows can hold layers that this one did not ask
        # for.
        self._layers = lens_layers(log.layers, start.lens.stride) if start.lens else []
        self._alternatives = start.alternatives
        self._named: set[int] = set()
        self._named_alternatives: set[int] = set()
        self._end = first_row
        self.revs_seen = 0
        """The newest revision that a written row has."""

    def take(self, entry: Entry) -> None:
        """Write the rows of an entry, those that are not there yet."""
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
        if self._alternatives and step is not None and step.alternatives and entry.token != NO_TOKEN:
            # Also of the prompt's last token where the prompt's rows were not asked for.
            self._write_alternatives(step.alternatives, entry.place, entry.end - 1)

    def _take_rows(self, entry: Entry, skip: int, revs: list[int], *, hole: bool) -> None:
        start, step = self._end, entry.step
        if self._lacks_rows(entry):
            self.close(entry.end)
        else:
            self._telemetry.rows_written(len(revs))
            if self._numbers and step is not None:
                self._write(step, entry.first + skip, start, revs)
            elif self._alternatives:
                self._log.add_rows(start, revs, b"")
            if self._top and step is not None and step.guesses is not None:
                self._write_guesses(step, entry.place, entry.end - 1)
            self._end = entry.end
        if revs[-1] > self.revs_seen:  # revisions never fall within a run
            for position, rev in enumerate(revs, start):
                if rev > self.revs_seen:
                    self.revs_seen = rev
                    self._applied(rev, position, not (hole and position == start))

    def _lacks_rows(self, entry: Entry) -> bool:
        """Whether what was asked for of an entry's rows has not come."""
        if self._numbers:
            return entry.step is None or entry.first == BARE
        return bool(self._alternatives) and (entry.step is None or entry.step.lost)

    def _write_prefix(self, until: int, rev: int) -> None:
        """The run begins behind what the engine had in its cache, which was computed as with `rev`."""
        for start, end, values in self._read(self._end, until, rev) if self._numbers else ():
            if values is None:
                self._log.append(GapEvent(start, end - start, cached=True))
                continue
            revs = [rev] * len(values)
            self._telemetry.rows_written(len(revs))
            nats = self._nothing(len(revs)).tobytes() if self._entropy else None
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

    def _write(self, step: Step, first: int, start: int, revs: list[int]) -> None:
        # Copied: a slice would keep the numbers of all runs of its step for as long as this log is kept.
        rows = slice(first, first + len(revs))
        nats = None
        if self._entropy:
            nats = (self._nothing(len(revs)) if step.entropy is None else step.entropy[rows]).tobytes()
        self._log.add_rows(start, revs, self._mine(step, step.values[rows]).tobytes(), nats)

    @staticmethod
    def _nothing(*shape: int) -> NDArray[np.float16]:
        return np.full(shape, np.nan, dtype="<f2")

    def _mine(self, step: Step, found: NDArray[np.float16]) -> NDArray[np.float16]:
        """Of rows of a step this run's metrics, [rows, metrics, layers]; NaN where there are none."""
        if step.metrics == self._log.metrics and not self._layers:
            return found
        mine = self._nothing(len(found), len(self._log.metrics), self._log.layers)
        for column, name in enumerate(self._log.metrics):
            if name not in step.metrics:
                continue  # it has failed since this run began
            theirs = found[:, step.metrics.index(name)]
            if name in LENS_METRICS:
                mine[:, column, self._layers] = theirs[:, self._layers]
            else:
                mine[:, column] = theirs
        return mine

    def _write_guesses(self, step: Step, place: int, position: int) -> None:
        guesses = step.guesses
        if guesses is None:
            return
        at = int(np.searchsorted(guesses.entries, place))
        if at == len(guesses.entries) or guesses.entries[at] != place:
            return
        layers = [guesses.layers.index(layer) for layer in self._layers]
        ids = guesses.ids[at, layers, : self._top]
        fresh = sorted(set(ids.ravel().tolist()) - self._named)
        self._named.update(fresh)
        self._log.add_guesses(
            LensEvent(
                position=position,
                layers=self._layers,
                ids=ids,
                probabilities=guesses.probabilities[at, layers, : self._top],
                names=[(token, self._texts.alone(token)) for token in fresh],
            )
        )

    def _write_alternatives(self, found: Alternatives, place: int, position: int) -> None:
        at = int(np.searchsorted(found.entries, place))
        if at == len(found.entries) or found.entries[at] != place:
            return
        ids = found.ids[at, : self._alternatives].copy()
        fresh = sorted(set(ids.tolist()) - self._named_alternatives)
        self._named_alternatives.update(fresh)
        self._log.add_alternatives(
            AlternativesEvent(
                position=position,
                ids=ids,
                logprobs=found.logprobs[at, : self._alternatives].copy(),
                names=[(token, self._texts.alone(token)) for token in fresh],
            )
        )
