"""Steering vectors as files: read, checked, never unpickled.

One safetensors file holds one vector: a tensor `layer.<i>` of shape [hidden_size] for each layer it acts on,
and a metadata key `steersight` with a JSON map {id, label, description, range, suggested, model, provenance}.
Directions are scaled to unit length when they are read.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "bundled"
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class VectorFileError(ValueError):
    """A file that is not a usable steering vector; the message says what to change."""


@dataclass(frozen=True)
class SteeringVector:
    """A named direction in the residual stream at one or several layers."""

    id: str
    label: str
    description: str
    layers: list[int]
    directions: torch.Tensor
    """[len(layers), hidden_size] fp32, unit length."""
    range: tuple[float, float]
    suggested: float
    model: str
    provenance: dict[str, Any]


@dataclass
class VectorStore:
    """The vectors that fit the served model."""

    vectors: dict[str, SteeringVector] = field(default_factory=dict)

    @classmethod
    def open(cls, *, model: str, hidden_size: int, layers: int, folder: Path) -> VectorStore:
        """Read the vectors bundled for `model` and those in `folder`; a bad file is logged and left out."""
        store = cls()
        for place in (BUNDLED / model, folder):
            for path in sorted(place.glob("*.safetensors")):
                try:
                    vector = read_vector(path, hidden_size=hidden_size, layers=layers)
                except VectorFileError as error:
                    logger.warning("%s", error)
                    continue
                store.vectors[vector.id] = vector
        return store


def read_vector(path: Path, *, hidden_size: int, layers: int) -> SteeringVector:
    """Read and check one file. Raises VectorFileError with a sentence."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})["steersight"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise VectorFileError(
            f"{path.name} is not a steering vector: it must be a safetensors file with a `steersight` "
            f"metadata entry ({type(error).__name__}: {error})."
        ) from None
    directions: dict[int, torch.Tensor] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"layer\.(\d+)", name)
        if match is None:
            raise VectorFileError(f"{path.name}: tensor {name!r} is not named `layer.<number>`.")
        layer, value = int(match[1]), tensor.float()
        if layer >= layers:
            raise VectorFileError(f"{path.name}: layer {layer} does not exist; the model has {layers}.")
        if tuple(value.shape) != (hidden_size,):
            raise VectorFileError(
                f"{path.name}: layer {layer} has shape {tuple(value.shape)}; this model needs ({hidden_size},)."
            )
        norm = value.norm()
        if not torch.isfinite(value).all() or norm == 0:
            raise VectorFileError(f"{path.name}: layer {layer} is zero or not finite, so it has no direction.")
        directions[layer] = value / norm
    if not directions or not _ID.fullmatch(str(about.get("id", ""))):
        raise VectorFileError(f"{path.name} has no layers, or an id that is not a plain name.")
    order = sorted(directions)
    return SteeringVector(
        id=about["id"],
        label=str(about.get("label", about["id"])),
        description=str(about.get("description", "")),
        layers=order,
        directions=torch.stack([directions[layer] for layer in order]),
        range=(float(about["range"][0]), float(about["range"][1])),
        suggested=float(about["suggested"]),
        model=str(about.get("model", "")),
        provenance=dict(about.get("provenance", {})),
    )
