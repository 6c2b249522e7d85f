"""Banks of vectors for tests that have no engine."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from steersight.engine.arrivals import described
from steersight.engine.bank import BankedVector, VectorBank
from steersight.engine.pool import VectorPool
from steersight.vectors.store import FeatureReader, SteeringVector


def steering_vector(
    name: str, own: Mapping[int, torch.Tensor], reader: FeatureReader | None = None
) -> SteeringVector:
    """A vector out of layer -> [hidden_size] of any length."""
    rows = torch.stack([own[layer] for layer in sorted(own)])
    return SteeringVector(
        id=name, label=name, description="", layers=sorted(own), directions=rows, range=(-1.0, 1.0),
        suggested=0.3, model="any", hidden_size=rows.shape[1], reader=reader,
    )  # fmt: skip


def small_pool(layers: int, hidden_size: int, rows: int = 512) -> VectorPool:
    """A pool on the CPU."""
    return VectorPool(layers, hidden_size, torch.device("cpu"), 4 * hidden_size * rows)


def banked(vector: SteeringVector, pool: VectorPool) -> BankedVector:
    """The same, ready to act."""
    tensors = {"directions": vector.directions, "lengths": vector.lengths}
    if vector.reader is not None:
        tensors["encoder"] = vector.reader.weight
    return BankedVector.build(described(vector), tensors, pool)


def make_bank(
    vectors: Mapping[str, Mapping[int, torch.Tensor]], layers: int,
    readers: Mapping[str, FeatureReader] | None = None,
) -> VectorBank:  # fmt: skip
    """A bank out of vector -> layer -> [hidden_size]."""
    (hidden_size,) = {len(row) for own in vectors.values() for row in own.values()}
    bank = VectorBank(small_pool(layers, hidden_size))
    for name, own in vectors.items():
        bank.add(name, banked(steering_vector(name, own, (readers or {}).get(name)), bank.pool))
    return bank
