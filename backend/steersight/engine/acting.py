"""What acts on each row of a replayed step, as a CUDA graph reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..vectors.action import MAX_AT_WORK
from .kernel_reference import FIELDS

if TYPE_CHECKING:
    from ..vectors.action import Action
    from .bank import VectorBank


class ActingTable:
    """A short list for every row, at a fixed address; a host copy of it says what has changed."""

    def __init__(self, bank: VectorBank, rows: int) -> None:
        device = bank.pool.device
        self.entries = torch.zeros(rows, MAX_AT_WORK, len(FIELDS), dtype=torch.float32, device=device)
        """[rows, `MAX_AT_WORK`, 7] fp32, `kernel_reference.FIELDS`"""
        self.counts = torch.zeros(rows, dtype=torch.int32, device=device)
        """[rows]: entries of each row. What stands behind them is not read."""
        self._bank = bank
        self._entries = np.zeros(tuple(self.entries.shape), dtype=np.float32)
        self._counts = np.zeros(rows, dtype=np.int32)
        self._written: list[Sequence[Action] | None] = [()] * rows
        """What acts on each row by the host's copy; None where that does not hold any more."""
        self._changes = bank.changes
        """The bank's when it was written: names and slots may have moved since."""

    def fill(self, rows: Sequence[Sequence[Action]]) -> None:
        """Put down what acts on the first rows; nothing acts on the others.

        Only rows that differ from the last step's are written, and nothing is copied where none does.

        Args:
            rows: per row, in the order in which its vectors compose.

        Raises:
            KeyError: a vector is unknown. What stands in the table then is nobody's; see `clear`.
        """
        if self._changes != self._bank.changes:
            self._written = [None] * len(self._written)
            self._changes = self._bank.changes
        last = -1
        for row, written in enumerate(self._written):
            wanted = rows[row] if row < len(rows) else ()
            if wanted == written:
                continue
            for k, action in enumerate(wanted):
                self._entries[row, k] = self._entry(action)
            self._counts[row] = len(wanted)
            self._written[row] = wanted
            last = row
        if last >= 0:
            self._copy(last + 1)

    def _entry(self, action: Action) -> tuple[float, ...]:
        first, last = action.layers or (-1, -1)
        slot = self._bank.vectors[action.vector].slot
        return (slot, action.strength, action.code, action.lo, action.hi, first, last)

    def _copy(self, count: int) -> None:
        for host, device in ((self._entries, self.entries), (self._counts, self.counts)):
            found = torch.from_numpy(host[:count])
            if device.device.type == "cuda":
                # A new pinned copy each time: the step before may still be reading the last.
                found = torch.empty(found.shape, dtype=found.dtype, pin_memory=True).copy_(found)
            device[:count].copy_(found, non_blocking=True)

    def clear(self) -> None:
        """Let nothing act on any row, and take nothing for written."""
        self.counts.zero_()
        self._written = [None] * len(self._written)
