"""Features of sparse autoencoders, and a vector made of one.

Shared by the importers of single projects, which find the feature's weights. A feature's activation f and its
decoder direction d make up f * d of the stream; changing f to f' and keeping the reconstruction error changes
the stream by (f' - f) * d. Adding s to f is therefore h + s * d, our `add_absolute` with d at its own length.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...naming import model_name
from ..store import READER_FIELDS, FeatureReader, SteeringVector, VectorError
from .places import Place
from .report import Target, check_size, clip, relative_range

if TYPE_CHECKING:
    import torch

MAX_FEATURES = 256
MAX_CONFIG_BYTES = 1 << 20
CATALOGUE = ((-15.0, 15.0), 8.0)
"""Range and suggestion in activation units: the demo that catalogues come from goes to 15 and shows 8."""


@dataclass(frozen=True)
class Feature:
    """One feature's weights as found in a project's files."""

    index: int
    place: Place
    direction: torch.Tensor
    """[hidden_size], d for an activation in the units of `reader`"""
    reader: FeatureReader | None
    provenance: dict[str, Any]


def feature_vector(
    target: Target,
    feature: Feature,
    *,
    id: str,  # noqa: A002 - the vector's own word
    label: str,
    description: str,
    strengths: tuple[tuple[float, float], float] | None = None,
) -> SteeringVector:
    """A vector of one feature.

    `strengths` are in activation units. Without them nothing says how large an activation is at home, so the
    slider is relative to the stream's length; in what attention adds, where only the absolute step exists, it
    is the catalogue's.
    """
    target.check_layer(feature.place.layer)
    target.check_width(feature.direction.shape[0])
    check_size(feature.direction)
    reader = feature.reader
    if reader is not None and not all(math.isfinite(getattr(reader, name)) for name in READER_FIELDS):
        raise VectorError("Its encoder's biases or threshold are not finite numbers.")
    relative = strengths is None and feature.place.site == "residual"
    if strengths is None:
        strengths = relative_range(1) if relative else CATALOGUE
    return SteeringVector(
        id=id,
        label=clip(label),
        description=clip(description),
        layers=[feature.place.layer],
        directions=feature.direction[None].float(),
        range=strengths[0],
        suggested=strengths[1],
        model=model_name(target.model),
        hidden_size=target.hidden_size,
        operator="add" if relative else "add_absolute",
        kind="feature",
        site=feature.place.site,
        reader=reader,
        provenance={**feature.provenance, "feature": feature.index},
    )


def check_index(index: int, count: int) -> None:
    """Raise VectorError unless the autoencoder has this feature."""
    if not 0 <= index < count:
        raise VectorError(f"It has no feature {index}; its features are 0 to {count - 1}.")


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object from a small file. Raises VectorError."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise VectorError(f"{path.name} is larger than {MAX_CONFIG_BYTES >> 20} MiB.")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise VectorError(f"{path.name} cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise VectorError(f"{path.name} is not JSON ({str(error)[:100]}).") from error
    if not isinstance(content, dict):
        raise VectorError(f"{path.name} is not a JSON object.")
    return content


def whole_number(config: dict[str, Any], *names: str) -> int:
    """A positive whole number under the first of these names that is there."""
    for name in names:
        if name in config:
            value = config[name]
            if type(value) is int and 0 < value < 1 << 31:
                return value
            break
    raise VectorError(f"Its configuration has no whole number {names[0]!r}.")


def positive(value: Any, what: str) -> float:
    """A number above 0."""
    if type(value) not in (int, float) or not 0 < value < 1e30:
        raise VectorError(f"Its configuration has no number above 0 as {what}.")
    return float(value)
