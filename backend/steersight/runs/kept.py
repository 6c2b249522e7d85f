"""Rows of prefixes that have been computed, kept for the next run that begins with the same tokens.

Where the engine finds the beginning of a prompt in its cache, no forward pass runs over it, and so it has no
rows. A run before it had them, or nobody would have computed that beginning; here they are kept, known by
what they depend on: all tokens up to their own, and what acted on each of them. As the engine's cache does,
in blocks, each of which is known by a digest of its tokens, of what acted on them, and of the block before.

Pure: no engine, no clock.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engine.run_state import RunState
    from .columns import Columns
    from .log import RunLog

BLOCK = 16
"""Positions of a block: a divisor of every size that an engine's blocks have."""

ARRAY_BYTES, BLOCK_BYTES = 150, 350
"""What an array and a block weigh beside their numbers: a quarter more, for three metrics of 32 layers.
`size` is then what the process grows by, within a hundredth."""

Prefix = tuple[int, int, "NDArray[np.float16] | None"]
"""First position of some rows, one past the last, and the rows [positions, metrics, layers]; None where
nobody has them."""


def block_keys(ids: Sequence[int], state: RunState, blocks: int) -> Iterator[bytes]:
    """What each of the first blocks of a run is known by.

    Args:
        ids: tokens of prompt and reply.
        state: what acted on its positions.
        blocks: how many blocks.
    """
    key = b""
    for start in range(0, blocks * BLOCK, BLOCK):
        digest = hashlib.blake2b(key, digest_size=16)
        digest.update(array("i", ids[start : start + BLOCK]).tobytes())
        digest.update(state.deeds(start, start + BLOCK).encode())
        key = digest.digest()
        yield key


class KeptRows:
    """The rows of all runs of a server that have been kept; the longest unused go first."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of all that is kept; 0 keeps none."""
        self.size = 0
        """Bytes of all that is kept."""
        self._most = most_bytes
        self._blocks: OrderedDict[bytes, dict[str, NDArray[np.float16]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def clear(self) -> None:
        """Keep none of what was kept: tokens mean something else from now on."""
        self._blocks.clear()
        self.size = 0

    def keep(self, log: RunLog, ids: Sequence[int], state: RunState) -> None:
        """Keep what a run's log holds of whole blocks, of each row the columns that it has."""
        rows = log.rows
        if not self._most:
            return
        keys: list[bytes] = []
        for first, last in rows.stretches(rows.gone, len(rows)):
            columns = rows.segment(first).columns
            named = [(at, name) for at, name in enumerate(columns) if name is not None]
            if not named:
                continue
            keys = keys or list(block_keys(ids, state, rows.end // BLOCK))
            begin, end = rows.positions[first], rows.positions[last - 1] + 1
            shape = (end - begin, len(columns), log.layers)
            values = np.frombuffer(rows.values_of(first, last), dtype="<f2").reshape(shape)
            for block in range(-(-begin // BLOCK), end // BLOCK):
                at = block * BLOCK - begin
                self._put(keys[block], {name: values[at : at + BLOCK, column] for column, name in named})

    def _put(self, key: bytes, found: dict[str, NDArray[np.float16]]) -> None:
        held = self._blocks.get(key, {})
        # What has failed in its run has no numbers, and may have some in another.
        fresh = {
            name: values.copy()
            for name, values in found.items()
            if name not in held and not np.isnan(values).all()
        }
        if fresh and not held:
            self._blocks[key] = held
            self.size += BLOCK_BYTES
        if held or fresh:
            self._blocks.move_to_end(key)
        held.update(fresh)
        self.size += sum(values.nbytes + ARRAY_BYTES for values in fresh.values())
        while self.size > self._most:
            _, oldest = self._blocks.popitem(last=False)
            self.size -= BLOCK_BYTES + sum(values.nbytes + ARRAY_BYTES for values in oldest.values())

    def reach(self, columns: Columns, ids: Sequence[int], state: RunState, first: int = 0) -> int:
        """Up to which position there are all rows from position `first` on, in whole blocks; as in `find`."""
        blocks = len(ids) // BLOCK
        wanted = [name for name in columns if name is not None]
        for index, key in enumerate(block_keys(ids, state, blocks) if wanted else ()):
            held = self._blocks.get(key, {})
            if (index + 1) * BLOCK > first and not all(name in held for name in wanted):
                return index * BLOCK
        return blocks * BLOCK

    def find(
        self, columns: Columns, layers: int, ids: Sequence[int], state: RunState, until: int, first: int = 0
    ) -> Iterator[Prefix]:
        """The rows of positions [first, until), in order. There are none where one of the columns is not
        kept; metrics that have no column are NaN.
        """
        for index, key in enumerate(block_keys(ids, state, -(-until // BLOCK))):
            start, end = max(first, index * BLOCK), min(until, (index + 1) * BLOCK)
            if start >= end:
                continue
            held = self._blocks.get(key) if any(columns) else {}
            if held is None or any(name is not None and name not in held for name in columns):
                yield start, end, None
                continue
            if key in self._blocks:
                self._blocks.move_to_end(key)
            rows = np.full((end - start, len(columns), layers), np.nan, dtype="<f2")
            for at, name in enumerate(columns):
                if name is not None:
                    rows[:, at] = held[name][start - index * BLOCK : end - index * BLOCK]
            yield start, end, rows
