"""Banks of vectors for tests that have no engine."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from steersight.engine.bank import BankedVector, VectorBank, described
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


def banked(vector: SteeringVector, layers: int) -> BankedVector:
    """The same, ready to act in a model of so many layers on the CPU."""
    tensors = {"directions": vector.directions, "lengths": vector.lengths}
    if vector.reader is not None:
        tensors["encoder"] = vector.reader.weight
    return BankedVector.build(described(vector), tensors, layers, torch.device("cpu"))


def make_bank(
    vectors: Mapping[str, Mapping[int, torch.Tensor]], layers: int,
    readers: Mapping[str, FeatureReader] | None = None,
) -> VectorBank:  # fmt: skip
    """A bank out of vector -> layer -> [hidden_size]."""
    return VectorBank(
        {
            name: banked(steering_vector(name, own, (readers or {}).get(name)), layers)
            for name, own in vectors.items()
        }
    )
