"""The vectors on the model's device, and what of them acts where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..vectors.action import Action
from ..vectors.operators import LayerVectors, unit_rows
from ..vectors.store import READER_FIELDS

if TYPE_CHECKING:
    import torch

ENCODER = "encoder"


@dataclass(frozen=True)
class BankedVector:
    """One vector, ready to act."""

    layers: list[int]
    """Its own, ascending."""
    directions: torch.Tensor
    """[own layers, hidden_size] fp32, unit length"""
    lengths: torch.Tensor
    """[own layers] fp32"""
    nearest: torch.Tensor
    """[layers of the model] int64: which of its own is nearest to each, the lower of two"""
    attention: bool
    """Whether it is added to what attention adds."""
    reader: torch.Tensor | None
    """[hidden_size] fp32"""
    numbers: torch.Tensor
    """[5] fp32, `READER_FIELDS`; zeros without a reader"""


@dataclass
class VectorBank:
    """All vectors by id, in the server's order, which is the order in which they compose."""

    vectors: dict[str, BankedVector] = field(default_factory=dict)
    _layers: dict[tuple[int, tuple[str, ...]], LayerVectors] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        tensors: Mapping[str, Mapping[int, torch.Tensor]],
        layers: int,
        device: torch.device,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        readers: Mapping[str, torch.Tensor] | None = None,
    ) -> VectorBank:
        """For a model of so many layers.

        Args:
            tensors: vector -> layer -> [hidden_size] of any length.
            layers: of the model.
            device: of the model.
            facts: vector -> {site, reader: {READER_FIELDS}}, both optional.
            readers: vector -> [hidden_size], row of the encoder.
        """
        import torch

        found = {}
        for name, own in tensors.items():
            fact = (facts or {}).get(name, {})
            at = sorted(own)
            raw = torch.stack([own[layer].float() for layer in at]).to(device)
            numbers = fact.get("reader") or {}
            reader = (readers or {}).get(name)
            found[name] = BankedVector(
                layers=at,
                directions=unit_rows(raw),
                lengths=raw.double().norm(dim=-1).float(),
                nearest=torch.tensor(
                    [min(range(len(at)), key=lambda i: abs(at[i] - layer)) for layer in range(layers)]
                ).to(device),
                attention=fact.get("site") == "attention",
                reader=None if reader is None else reader.float().to(device),
                numbers=torch.tensor([float(numbers.get(name, 0.0)) for name in READER_FIELDS]).to(device),
            )
        return cls(found)

    def direction(self, vector: str, first: int, count: int) -> torch.Tensor:
        """[count, hidden_size] fp32 of layers `first` and up: its own, or that of its nearest layer."""
        banked = self.vectors[vector]
        return banked.directions.index_select(0, banked.nearest[first : first + count])

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
        """In the bank's order. Raises KeyError where one is unknown: a push that does nothing is a lie."""
        self.check(names)
        return tuple(name for name in self.vectors if name in names)

    def at(self, layer: int, names: tuple[str, ...]) -> LayerVectors:
        """Some vectors at one layer; kept, because the next step asks for the same."""
        key = (layer, names)
        if key not in self._layers:
            if len(self._layers) > 1024:
                self._layers.clear()
            self._layers[key] = self._gather(layer, names)
        return self._layers[key]

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
