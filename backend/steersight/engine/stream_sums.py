"""Sums of the residual stream over a run's tokens, for making vectors: only the sums leave the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..metrics import View

MAX_HELD = 256
"""Runs whose sums wait to be fetched; the oldest are forgotten first."""


@dataclass
class Sum:
    """What has been seen of one run."""

    total: torch.Tensor
    """[layers, hidden_size] fp32"""
    tokens: int = 0


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
                held.total[view.first : view.first + view.count] += mine.sum(dim=1)
                if view.first == 0:
                    held.tokens += count - skip
            offset += count

    def fetch(self, run: str) -> Sum | None:
        """A run's sums, which are forgotten here; None where nothing was seen."""
        return self._sums.pop(run, None)

    def __len__(self) -> int:
        return len(self._sums)
