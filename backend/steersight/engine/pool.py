"""The directions of all vectors of a worker: one pool on the model's device, at addresses that never change.

A recorded CUDA graph reads the vectors where they were when it was recorded. So all memory is taken once,
before vLLM measures what is left for its KV cache, and a vector that comes gets rows of it. Which rows hold
a vector's direction at a layer, small tables say by *slot*, the number of a vector that is in the pool; what
acts on a token names slots. The eager pass reads the same pool, and its host copies of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..vectors.store import READER_FIELDS, VectorError

if TYPE_CHECKING:
    import torch

POOL_BYTES = 512 << 20
"""Of directions: a thousand vectors with one for every layer of an 8B model (0.5 MiB each), two hundred of a
70B model (2.5 MiB), and less than a hundredth of the GPUs that such models need. On a CPU the system gives
memory only where something has been written."""
SLOTS = 4096
"""Vectors in the pool at once; what says so little of each that the room for it does not count."""
NO_READER = 0
"""Row of zeros: the reader of vectors that have none."""


class VectorPool:
    """Rows of directions, and which of them belong to whom."""

    def __init__(
        self, layers: int, hidden_size: int, device: torch.device, capacity_bytes: int = POOL_BYTES
    ) -> None:
        """Take the memory for vectors of a model, `capacity_bytes` of directions."""
        import torch

        rows = 1 + max(1, capacity_bytes // (4 * hidden_size))
        slots = min(SLOTS, rows)
        self.device = device
        self.directions = torch.empty(rows, hidden_size, dtype=torch.float32, device=device)
        """[rows, hidden_size] fp32: directions of unit length, and rows of encoders. Row 0 is zeros."""
        self.directions[0] = 0.0
        self.lengths = torch.zeros(rows, 1, device=device)
        """[rows, 1] fp32: what each direction was long."""
        self.row_of = torch.zeros(layers, slots, dtype=torch.int32, device=device)
        """[layers, slots]: the row with a vector's direction at a layer, its own or its nearest one's."""
        self.own = torch.zeros(layers, slots, dtype=torch.int32, device=device)
        """[layers, slots]: 1 where the layer is the vector's own."""
        self.reader_of = torch.zeros(slots, dtype=torch.int32, device=device)
        """[slots]: the row with a vector's reader, or `NO_READER`."""
        self.numbers = torch.zeros(slots, len(READER_FIELDS), device=device)
        """[slots, 5] fp32, `store.READER_FIELDS`; zeros without a reader."""
        self.host_row_of = np.zeros((layers, slots), dtype=np.int64)
        self.host_reader_of = np.zeros(slots, dtype=np.int64)
        self._free_rows = list(range(rows - 1, 0, -1))
        self._free_slots = list(range(slots - 1, -1, -1))
        self._taken: dict[int, list[int]] = {}

    def add(
        self,
        own: Sequence[int],
        directions: torch.Tensor,
        lengths: torch.Tensor,
        reader: torch.Tensor | None = None,
        numbers: Sequence[float] = (0.0,) * len(READER_FIELDS),
    ) -> int:
        """Put a vector in.

        Args:
            own: its layers, ascending.
            directions: [own layers, hidden_size] fp32, unit length.
            lengths: [own layers] fp32.
            reader: [hidden_size] fp32.
            numbers: `store.READER_FIELDS`.

        Returns:
            Its slot.

        Raises:
            VectorError: there is no room for it; nothing has changed.
        """
        import torch

        layers = len(self.row_of)
        needed = len(own) + (reader is not None)
        self._check_room(needed)
        slot = self._free_slots.pop()
        rows = self._taken[slot] = [self._free_rows.pop() for _ in range(needed)]
        mine = torch.tensor(rows, device=self.device)
        self.directions[mine[: len(own)]] = directions.to(self.device, torch.float32)
        self.lengths[mine[: len(own)], 0] = lengths.to(self.device, torch.float32)
        if reader is not None:
            self.directions[rows[-1]] = reader.to(self.device, torch.float32)
        self.host_reader_of[slot] = NO_READER if reader is None else rows[-1]
        self.reader_of[slot] = int(self.host_reader_of[slot])
        # The lower of two that are equally near.
        nearest = [min(range(len(own)), key=lambda i: abs(own[i] - layer)) for layer in range(layers)]
        self.host_row_of[:, slot] = [rows[at] for at in nearest]
        self.row_of[:, slot] = torch.from_numpy(self.host_row_of[:, slot].astype(np.int32)).to(self.device)
        acts = torch.tensor([int(layer in own) for layer in range(layers)], dtype=torch.int32)
        self.own[:, slot] = acts.to(self.device)
        self.numbers[slot] = torch.tensor(list(numbers), dtype=torch.float32).to(self.device)
        return slot

    def remove(self, slot: int) -> None:
        """Take a vector out. Who comes next may get its slot and its rows."""
        self._free_rows.extend(reversed(self._taken.pop(slot)))
        self._free_slots.append(slot)

    def direction(self, slot: int, first: int, count: int) -> torch.Tensor:
        """[count, hidden_size] fp32 of layers `first` and up: its own, or that of its nearest layer."""
        return self.directions.index_select(0, self.row_of[first : first + count, slot])

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self._taken)

    def _check_room(self, rows: int) -> None:
        if not self._free_slots:
            raise VectorError(
                f"The engine holds {len(self._taken)} vectors, which are all that it can. Delete one that is "
                "not needed, and add this one again."
            )
        if rows > len(self._free_rows):
            mib = 4 * self.directions.shape[1] / (1 << 20)
            free, whole = len(self._free_rows), len(self.directions) - 1
            raise VectorError(
                f"It needs {rows * mib:.1f} MiB on the model's device. Of the {whole * mib:.0f} MiB that the "
                f"engine keeps for vectors {free * mib:.1f} MiB are free. Delete vectors that are not "
                "needed, or bring this one for fewer layers."
            )
