"""How a vector comes to the workers: by itself and in pieces, so that nobody waits for a large one.

Neither the server's event loop nor a forward pass does: `pieces` makes them on the server, in threads, and
`Arrivals` puts them together in each worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..vectors.store import READER_FIELDS
from .bank import BankedVector
from .pool import VectorPool

if TYPE_CHECKING:
    import torch

    from ..vectors.store import SteeringVector

PIECE_BYTES = 4 << 20
"""The most that travels at once, if one layer's direction is not more."""


def described(vector: SteeringVector) -> dict[str, Any]:
    """What a worker has to know of a vector beside its tensors."""
    reader = vector.reader
    return {
        "label": vector.label,
        "layers": vector.layers,
        "site": vector.site,
        "reader": None if reader is None else {name: getattr(reader, name) for name in READER_FIELDS},
    }


def pieces(vector: SteeringVector) -> Iterator[bytes]:
    """A vector's tensors as safetensors files of at most about `PIECE_BYTES`, for `Arrivals.take`."""
    from safetensors.torch import save

    rows = max(1, PIECE_BYTES // (4 * vector.hidden_size))
    for first in range(0, len(vector.layers), rows):
        yield save({"directions": vector.directions[first : first + rows].contiguous()})
    small = {"lengths": vector.lengths.contiguous()}
    if vector.reader is not None:
        small["encoder"] = vector.reader.weight.float().contiguous()
    yield save(small)


class Arrivals:
    """Vectors on their way into one worker's bank."""

    def __init__(self, pool: VectorPool) -> None:
        self._pool = pool
        self._pieces: dict[str, dict[str, list[torch.Tensor]]] = {}
        self._complete: dict[str, BankedVector] = {}

    def take(self, name: str, piece: bytes) -> None:
        """The next piece of a vector."""
        from safetensors.torch import load

        mine = self._pieces.setdefault(name, {})
        for tensor, values in load(piece).items():
            mine.setdefault(tensor, []).append(values)

    def complete(self, name: str, fact: Mapping[str, Any]) -> None:
        """All pieces are there: put the vector into the pool. Whatever can fail has been done then.

        Raises: VectorError where there is no room.
        """
        import torch

        tensors = {tensor: torch.cat(found) for tensor, found in self._pieces.pop(name).items()}
        self._complete[name] = BankedVector.build(fact, tensors, self._pool)

    def pop(self, name: str) -> BankedVector:
        """A complete one, which is forgotten here."""
        return self._complete.pop(name)

    def drop(self, name: str) -> None:
        """Forget whatever has come of a vector."""
        self._pieces.pop(name, None)
        complete = self._complete.pop(name, None)
        if complete is not None:
            self._pool.remove(complete.slot)
