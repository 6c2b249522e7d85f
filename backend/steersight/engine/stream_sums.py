"""Sums of the residual stream over a run's tokens, for making vectors: only the sums leave the worker.

The worker computes further than a reply goes: with asynchronous scheduling the next step has begun when the
end token is found. Only the server knows how long the reply is. So the newest rows are kept one by one until
the sums are fetched, and what lies behind the end is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..metrics import View

MAX_HELD = 256
"""Runs whose sums wait to be fetched; the oldest are forgotten first."""


AHEAD = 4
"""Rows that are kept one by one. Asynchronous scheduling is one step ahead of what it knows."""


@dataclass
class Sum:
    """What has been seen of one run."""

    total: torch.Tensor
    """[layers, hidden_size] fp32"""
    tokens: int = 0
    newest: dict[int, torch.Tensor] = field(default_factory=dict)
    """Position -> [layers, hidden_size], the oldest first: not in `total` yet."""

    def settle(self, keep: int) -> None:
        """Add all rows to the total but the newest `keep`."""
        while len(self.newest) > keep:
            # Not in place: it is fetched outside of inference mode.
            self.total = self.total + self.newest.pop(next(iter(self.newest)))
            self.tokens += 1


class StreamSums:
    """The sums of all runs that want them, on the model's device."""

    def __init__(self, layers: int, hidden_size: int, device: torch.device) -> None:
        self._shape = (layers, hidden_size)
        self._device = device
        self._sums: dict[str, Sum] = {}

    def take(self, view: View, wanted: set[str]) -> None:
        """Add what the view shows of the wanted runs. Position 0, the attention sink, never counts."""
        import torch

        offset = 0
        for run, start, count in view.runs:
            skip = 1 if start == 0 else 0
            if run in wanted and count > skip:
                held = self._sums.get(run)
                if held is None:
                    while len(self._sums) >= MAX_HELD:
                        del self._sums[next(iter(self._sums))]
                    held = self._sums[run] = Sum(torch.zeros(self._shape, device=self._device))
                mine = view.after[:, offset + skip : offset + count]
                layers = slice(view.first, view.first + view.count)
                if count > 1:
                    held.total[layers] += mine.sum(dim=1)
                    held.tokens += count - skip if view.first == 0 else 0
                else:
                    if view.first == 0:
                        held.settle(AHEAD - 1)
                        held.newest[start] = torch.empty(self._shape, device=self._device)
                    held.newest[start][layers] = mine[:, 0]
            offset += count

    def fetch(self, run: str, end: int) -> Sum | None:
        """A run's sums over the positions before `end`, which are forgotten here.

        None where nothing was seen. Of positions before the end at most `AHEAD` steps may have followed.
        """
        found = self._sums.pop(run, None)
        if found is not None:
            found.newest = {position: row for position, row in found.newest.items() if position < end}
            found.settle(0)
        return found

    def __len__(self) -> int:
        return len(self._sums)
