"""What an importer is asked, what it answers, and how a checked vector is made of what it found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...naming import model_name
from ..store import MAX_TEXT, SteeringVector, VectorError

if TYPE_CHECKING:
    import torch

Norm = Literal["layer", "rms", "unknown"]
"""LayerNorm takes a token's mean out of the stream before anything reads it, RMSNorm does not."""
RELATIVE_LIMIT = 0.5
"""A norm-relative strength at which replies fall apart (docs/steering.md, "How much")."""
COEFFICIENT = ((-3.0, 3.0), 1.0)
"""Range and suggestion for directions that bring their own length: 1 is the vector as its maker saved it, and
the projects that make such files show coefficients of 1 to 2.5."""


@dataclass(frozen=True)
class ImportReport:
    """What was found in a file or folder, for the person who brought it."""

    format: str
    found: list[str]
    """Sentences: what was found, and what was guessed."""
    vectors: list[SteeringVector]
    """Those that fit the model."""
    problems: list[str]
    """Sentences: what does not fit or was left out, and what to do."""


@dataclass(frozen=True)
class Choice:
    """What a person can say where a file leaves it open."""

    layer: int | None = None
    """Layer after which a direction acts, 0-based, for a file that does not name one."""
    features: tuple[int, ...] = ()
    """Indices of a sparse autoencoder's features."""
    catalogue: bytes | None = None
    """A `features.json`: which feature of which autoencoder, by name."""
    id: str = ""
    """The vector's id, where there is only one."""


@dataclass(frozen=True)
class Target:
    """The model that a vector is imported for, and the name it came under."""

    name: str
    model: str
    hidden_size: int
    layers: int
    label: str = ""
    choice: Choice = Choice()
    norm: Norm = "unknown"

    @property
    def file(self) -> str:
        """The last part of the name, without what no text should hold."""
        last = re.split(r"[/\\]", self.name.rstrip("/\\"))[-1]
        return "".join(c for c in last if c.isprintable())[:200]

    @property
    def id(self) -> str:
        """An id for a file's only vector."""
        return clean_id(self.choice.id or re.sub(r"(\.(safetensors|gguf|json))+\Z", "", self.file))

    def check_width(self, width: int) -> None:
        """Raise VectorError unless directions of this many numbers fit."""
        if width != self.hidden_size:
            raise VectorError(
                f"It was made for a residual stream of {width} numbers; {model_name(self.model)}'s has "
                f"{self.hidden_size}. Import it for the model it was made for."
            )

    def check_layer(self, layer: int) -> None:
        """Raise VectorError unless the model has this layer."""
        if not 0 <= layer < self.layers:
            raise VectorError(
                f"It acts at layer {layer}; {model_name(self.model)}'s layers are 0 to {self.layers - 1}."
            )


def clean_id(text: str) -> str:
    """An id of allowed characters made of any text; never one that hides a file or leads out of a folder."""
    return re.sub(r"[^A-Za-z0-9_.:-]+", "-", text).strip(".-:")[:64] or "vector"


def check_size(directions: torch.Tensor) -> None:
    """Raise VectorError for numbers whose length fp32 cannot hold."""
    if not bool((directions.abs() < 1e30).all()):
        raise VectorError("Its directions hold NaN, infinity or numbers too large to be meant.")


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """A text of at most `limit` printable characters."""
    text = "".join(c if c.isprintable() else " " for c in text[: limit + 1]).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def relative_range(layers: int) -> tuple[tuple[float, float], float]:
    """Range and suggestion for a norm-relative vector that acts at so many layers.

    What one layer adds is still there at the next, so many layers share what one may do.
    """
    limit = round(max(RELATIVE_LIMIT / layers, 0.02), 3)
    return (-limit, limit), round(0.4 * limit, 3)


def span(layers: list[int]) -> str:
    """Layers in words: 'layer 5', 'layers 1 to 29', 'layers 3, 7, 9'."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if layers == list(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]} to {layers[-1]}"
    return f"layers {', '.join(map(str, layers))}"


def make_vector(
    target: Target,
    directions: dict[int, torch.Tensor],
    *,
    source: str,
    operator: Literal["add", "add_absolute"],
    problems: list[str],
    strengths: tuple[tuple[float, float], float] | None = None,
    site: Literal["residual", "attention"] = "residual",
    id: str = "",  # noqa: A002 - the vector's own word
    label: str = "",
    description: str = "",
    provenance: dict[str, Any] | None = None,
) -> SteeringVector:
    """A vector of directions by layer, each [hidden_size]; layers whose direction is zero are left out.

    Raises VectorError with a sentence when it does not fit the model.
    """
    import torch

    if not directions:
        raise VectorError("It holds no direction.")
    for layer in sorted(directions):
        target.check_layer(layer)
        target.check_width(directions[layer].shape[0])
    used = sorted(layer for layer, direction in directions.items() if bool(direction.any()))
    if not used:
        raise VectorError("All its directions are zero, so it points nowhere.")
    if empty := sorted(set(directions) - set(used)):
        problems.append(f"The direction of {span(empty)} is zero and was left out.")
    if strengths is None:
        strengths = COEFFICIENT if operator == "add_absolute" else relative_range(len(used))
    name = id or target.id
    stacked = torch.stack([directions[layer].float() for layer in used])
    check_size(stacked)
    return SteeringVector(
        id=name,
        label=clip(label or target.label or name.replace("_", " ")),
        description=clip(description),
        layers=used,
        directions=stacked,
        range=strengths[0],
        suggested=strengths[1],
        model=model_name(target.model),
        hidden_size=target.hidden_size,
        operator=operator,
        site=site,
        provenance={"imported_from": source, "file": target.file, **(provenance or {})},
    )
