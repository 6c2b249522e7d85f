"""The vectors on the model's device, what of them acts where, and how one comes there.

A vector travels by itself and in pieces, so that neither the server's event loop nor a forward pass waits for
a large one: `pieces` makes them on the server, `Arrivals` puts them together in each worker.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..vectors.action import Action
from ..vectors.operators import LayerVectors
from ..vectors.store import READER_FIELDS

if TYPE_CHECKING:
    import torch

    from ..vectors.store import SteeringVector

PIECE_BYTES = 4 << 20
"""The most that travels at once, if one layer's direction is not more."""
GATHERED_BYTES = 64 << 20
"""The most that is kept on the device of vectors gathered for a layer; see `VectorBank.at`."""
RETIRED = "@"
"""In the name of a vector that is no longer offered; no id has it."""


@dataclass(frozen=True)
class BankedVector:
    """One vector, ready to act."""

    label: str
    layers: list[int]
    """Its own, ascending."""
    directions: torch.Tensor
    """[own layers, hidden_size] fp32, unit length"""
    lengths: torch.Tensor
    """[own layers] fp32"""
    nearest: list[int]
    """[layers of the model]: which of its own is nearest to each, the lower of two"""
    rows: torch.Tensor
    """`nearest` on the device, int64"""
    attention: bool
    """Whether it is added to what attention adds."""
    reader: torch.Tensor | None
    """[hidden_size] fp32"""
    numbers: torch.Tensor
    """[5] fp32, `READER_FIELDS`; zeros without a reader"""

    @classmethod
    def build(
        cls, fact: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], layers: int, device: torch.device
    ) -> BankedVector:
        """Put a vector on the device of a model.

        Args:
            fact: {label, layers, site, reader}, as `described` gives it.
            tensors: {directions: [own layers, hidden_size], lengths: [own layers], encoder: [hidden_size]},
                fp32; no encoder without a reader.
            layers: number of the model's layers.
            device: of the model.
        """
        import torch

        own: list[int] = fact["layers"]
        nearest = [min(range(len(own)), key=lambda i: abs(own[i] - layer)) for layer in range(layers)]
        numbers = fact["reader"] or dict.fromkeys(READER_FIELDS, 0.0)
        reader = tensors.get("encoder")
        return cls(
            label=fact["label"],
            layers=own,
            directions=tensors["directions"].to(device),
            lengths=tensors["lengths"].to(device),
            nearest=nearest,
            rows=torch.tensor(nearest, device=device),
            attention=fact["site"] == "attention",
            reader=None if reader is None else reader.to(device),
            numbers=torch.tensor([numbers[name] for name in READER_FIELDS], device=device),
        )


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

    def __init__(self, layers: int, device: torch.device) -> None:
        self._layers = layers
        self._device = device
        self._pieces: dict[str, dict[str, list[torch.Tensor]]] = {}
        self._complete: dict[str, BankedVector] = {}

    def take(self, name: str, piece: bytes) -> None:
        """The next piece of a vector."""
        from safetensors.torch import load

        mine = self._pieces.setdefault(name, {})
        for tensor, values in load(piece).items():
            mine.setdefault(tensor, []).append(values)

    def complete(self, name: str, fact: Mapping[str, Any]) -> None:
        """All pieces are there: put the vector on the device. Whatever can fail has been done then."""
        import torch

        tensors = {tensor: torch.cat(found) for tensor, found in self._pieces.pop(name).items()}
        self._complete[name] = BankedVector.build(fact, tensors, self._layers, self._device)

    def pop(self, name: str) -> BankedVector:
        """A complete one, which is forgotten here."""
        return self._complete.pop(name)

    def drop(self, name: str) -> None:
        """Forget whatever has come of a vector."""
        self._pieces.pop(name, None)
        self._complete.pop(name, None)


@dataclass
class VectorBank:
    """All vectors by name, in the order in which they compose: the server's, for those that are offered.

    A bank does not change; `having`, `without` and `retiring` make another one.
    """

    vectors: dict[str, BankedVector] = field(default_factory=dict)
    _gathered: OrderedDict[tuple[int, tuple[str, ...]], LayerVectors] = field(default_factory=OrderedDict)
    """What `at` has made, the least recently used first."""
    _gathered_bytes: int = 0

    def having(self, name: str, vector: BankedVector) -> VectorBank:
        """The same with one more, as the last."""
        return VectorBank({**self.vectors, name: vector})

    def without(self, names: set[str]) -> VectorBank:
        """The same without some."""
        return VectorBank({name: vector for name, vector in self.vectors.items() if name not in names})

    def retiring(self, name: str) -> tuple[VectorBank, str]:
        """The same with another name for one vector, and that name: its id may be given to another vector."""
        number = 1
        while (retired := f"{name}{RETIRED}{number}") in self.vectors:
            number += 1
        return VectorBank({retired if n == name else n: v for n, v in self.vectors.items()}), retired

    @property
    def retired(self) -> set[str]:
        """Names of those that are no longer offered."""
        return {name for name in self.vectors if RETIRED in name}

    def labels(self) -> list[tuple[str, str]]:
        """(id, label) of those that are not retired."""
        return [(name, vector.label) for name, vector in self.vectors.items() if RETIRED not in name]

    def direction(self, vector: str, first: int, count: int) -> torch.Tensor:
        """[count, hidden_size] fp32 of layers `first` and up: its own, or that of its nearest layer."""
        banked = self.vectors[vector]
        return banked.directions.index_select(0, banked.rows[first : first + count])

    def acts(self, action: Action, layer: int) -> bool:
        """Whether an action pushes the stream after a layer (or attention's part in it)."""
        if action.layers is not None:
            return action.layers[0] <= layer <= action.layers[1]
        return layer in self.vectors[action.vector].layers

    def check(self, names: set[str]) -> None:
        """Raises KeyError where one is unknown."""
        missing = names - self.vectors.keys()
        if missing:
            raise KeyError(f"The engine has no vector {', '.join(sorted(missing))}.")

    def sorted(self, names: set[str]) -> tuple[str, ...]:
        """In the bank's order.

        Raises: KeyError where one is unknown. Ignoring it would report steering that never happened.
        """
        self.check(names)
        return tuple(name for name in self.vectors if name in names)

    def at(self, layer: int, names: tuple[str, ...]) -> LayerVectors:
        """Some vectors at one layer.

        Kept on the device, because the next step asks for the same: at most `GATHERED_BYTES` of them, the
        least recently used are given up first. What a step under way holds is counted by nobody else and
        freed with it: 2 * 4 * vectors * hidden_size bytes for each layer that is steered, at the most.
        """
        key = (layer, names)
        found = self._gathered.get(key)
        if found is not None:
            self._gathered.move_to_end(key)
            return found
        found = self._gathered[key] = self._gather(layer, names)
        self._gathered_bytes += found.nbytes
        while self._gathered_bytes > GATHERED_BYTES:
            _, oldest = self._gathered.popitem(last=False)
            self._gathered_bytes -= oldest.nbytes
        return found

    def _gather(self, layer: int, names: tuple[str, ...]) -> LayerVectors:
        import torch

        mine = [self.vectors[name] for name in names]
        own = [vector.nearest[layer] for vector in mine]
        read = any(vector.reader is not None for vector in mine)
        nothing = torch.zeros_like(mine[0].directions[0])
        return LayerVectors(
            directions=torch.stack([vector.directions[at] for vector, at in zip(mine, own, strict=True)]),
            lengths=torch.stack([vector.lengths[at] for vector, at in zip(mine, own, strict=True)]),
            readers=torch.stack([nothing if vector.reader is None else vector.reader for vector in mine])
            if read
            else None,
            numbers=torch.stack([vector.numbers for vector in mine]) if read else None,
        )
