"""From the engine's row blocks to a run's log: held back until their token is known, then in wire form.

Rows lead tokens. The row of position p comes from the pass that draws token p + 1, so it has a place in the
reply only if that token has one: the last token of a reply was never an input. But the engine may compute
further than the reply goes. A stop string is found in text, when the next step has already begun, and with
asynchronous scheduling the end token is, too. Therefore a row waits here until the token after it is known,
a few milliseconds, and what still waits when the run ends, however it ends, is dropped.

Invariant: the last row in the log, with its guesses and its `applied`, is that of position
prompt + reply - 2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..metrics import LENS_METRICS, Registry
from ..metrics.logit_lens import lens_layers
from .events import GapEvent, LensEvent, RowsEvent
from .log import MAX_ROWS_PER_FRAME, RunLog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engine.channel import RowBlock, TopBlock
    from ..protocol.messages import Start
    from ..telemetry import Telemetry
    from ..text.pieces import TokenTexts


class RowWriter:
    """Writes one run's rows, guesses and gaps into its log, in the order of positions."""

    def __init__(
        self, log: RunLog, start: Start, prompt_tokens: int, *, registry: Registry, texts: TokenTexts,
        telemetry: Telemetry, applied: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        """`applied` is told a revision and its position when the first row of it is written."""
        self._log = log
        self._registry = registry
        self._texts = texts
        self._telemetry = telemetry
        self._applied = applied
        self._entropy = start.entropy
        self._top = start.lens.top if start.lens else 0
        # The engine reads for all runs of a step together: rows can hold layers that this one did not ask
        # for.
        self._layers = lens_layers(log.layers, start.lens.stride) if start.lens else []
        self._named: set[int] = set()
        self._held: deque[RowBlock] = deque()
        self._end = 0 if start.prompt_rows else prompt_tokens
        self._known = prompt_tokens
        self.revs_seen = 0
        """The newest revision that a written row has."""

    def take(self, block: RowBlock) -> None:
        """Rows have come from the engine."""
        self._held.append(block)
        self._write()

    def know(self, tokens: int) -> None:
        """So many tokens of prompt and reply together are known."""
        self._known = tokens
        self._write()

    def close(self) -> None:
        """The reply is whole: say which rows of it never came. The engine has waited for them before it told
        of the end."""
        self._held.clear()
        self._lose(self._known - 1)

    def _write(self) -> None:
        until = self._known - 1
        while self._held and self._held[0].start < until:
            block = self._held[0]
            end = block.start + len(block.revs)
            self._lose(min(block.start, until))
            for first in range(max(block.start, self._end), min(end, until), MAX_ROWS_PER_FRAME):
                self._write_rows(block, first, min(first + MAX_ROWS_PER_FRAME, end, until))
            if end > until:
                return
            self._held.popleft()

    def _write_rows(self, block: RowBlock, first: int, end: int) -> None:
        """The block's rows of positions [first, end)."""
        part = slice(first - block.start, end - block.start)
        revs = block.revs[part]
        self._telemetry.rows_written(len(revs))
        if self._log.metrics or self._entropy:
            values = self._wire_values(block.values[part], block.metrics)
            self._log.append(RowsEvent(first, revs, values, self._wire_entropy(block, part)))
        if block.top is not None and first <= block.top.position < end:
            self._write_top(block.top)
        self._end = end
        for offset, rev in enumerate(revs):
            if rev > self.revs_seen:
                self.revs_seen = rev
                self._applied(rev, first + offset)

    def _lose(self, until: int) -> None:
        """The rows before `until` that are not here never come."""
        if (count := until - self._end) > 0:
            self._log.append(GapEvent(self._end, count))
            self._telemetry.rows_dropped(count)
            self._end = until

    def _wire_values(self, values: NDArray[np.float32], names: list[str]) -> NDArray[np.float16]:
        """[rows, metrics, layers] of this run's metrics; NaN where the engine had none."""
        import numpy as np

        mine = np.full((len(values), len(self._log.metrics), self._log.layers), np.nan, dtype=np.float32)
        for column, name in enumerate(self._log.metrics):
            if name not in names:
                continue  # it has failed since this run began
            found = values[:, names.index(name)]
            if name in LENS_METRICS:
                mine[:, column, self._layers] = found[:, self._layers]
            else:
                mine[:, column] = found
        return self._registry.to_wire(mine, self._log.metrics)

    def _wire_entropy(self, block: RowBlock, part: slice) -> NDArray[np.float16] | None:
        import numpy as np

        if not self._entropy:
            return None
        if block.entropy is None:
            return np.full(len(block.revs[part]), np.nan, dtype="<f2")
        return block.entropy[part].astype("<f2")

    def _write_top(self, top: TopBlock) -> None:
        if not self._top:
            return
        rows = [top.layers.index(layer) for layer in self._layers]
        ids = top.ids[rows, : self._top]
        fresh = sorted(set(ids.ravel().tolist()) - self._named)
        self._named.update(fresh)
        self._log.append(
            LensEvent(
                position=top.position,
                layers=self._layers,
                ids=ids,
                probabilities=top.probabilities[rows, : self._top].astype("<f2"),
                names=[(token, self._texts.alone(token)) for token in fresh],
            )
        )
