"""Directions in a safetensors file without Steersight's metadata: layers are told from names and shapes.

Read are tensors of shape [hidden_size] (or [1, hidden_size]) whose names carry a layer number, and a single
tensor [layers, hidden_size] or [layers + 1, hidden_size] (the hidden states of Hugging Face transformers,
whose first row is the embedding). Whatever is guessed is said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from ..store import VectorError
from .places import BEFORE
from .report import ImportReport, Target, make_vector, span
from .tensors import Tensors

if TYPE_CHECKING:
    import torch

FORMAT = "Plain safetensors"
LAYER_TYPES: dict[str, Literal["residual", "attention"]] = {
    "decoder_block": "residual",
    "self_attn": "attention",
}
"""What `layer_type` of a vector of the package steering-vectors means here (docs/steering.md's converter)."""
_AFTER_WORD = re.compile(r"(?:layers?|blocks?|h|direction|resid(?:ual)?)[._/-]?(\d+)(?!\d)")


def read_plain(tensors: Tensors, target: Target) -> ImportReport:
    """Read directions from an open file. Raises VectorError."""
    problems: list[str] = []
    shapes: dict[str, list[int]] = {}
    for name in tensors.names:
        try:
            shape = tensors.shape(name)
        except VectorError as error:
            problems.append(f"{error} It was left out.")
            continue
        if len(shape) in (1, 2) and shape[-1] == target.hidden_size:
            shapes[name] = shape
        else:
            problems.append(f"The tensor {name!r} of shape {shape} is no direction and was left out.")
    if not shapes:
        raise VectorError(
            f"It holds no tensor of shape [{target.hidden_size}] or [layers, {target.hidden_size}], "
            f"which the model's hidden size asks for; it holds {_listed(tensors)}."
        )
    matrices = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] > 1]
    if matrices:
        if len(shapes) > 1:
            raise VectorError(
                f"It holds {len(shapes)} tensors, some of them [layers, {target.hidden_size}]; which to use "
                "is not clear. Save one of them alone."
            )
        found, directions = _rows(tensors, matrices[0], shapes[matrices[0]], target)
    else:
        found, directions = _named(tensors, shapes, target)
    kind = tensors.metadata.get("layer_type")
    if kind is not None and kind not in LAYER_TYPES:
        raise VectorError(
            f"It was made for {kind[:40]!r}; directions can be added after a decoder_block or to self_attn."
        )
    site = LAYER_TYPES[kind or "decoder_block"]
    if kind is None:
        found.append("Strengths are relative to the stream's length, as for most vectors here.")
    else:
        found.append("A strength is the multiplier of steering-vectors: 1 adds the vector as it is.")
    vector = make_vector(
        target,
        directions,
        source=FORMAT,
        operator="add" if kind is None else "add_absolute",
        site=site,
        problems=problems,
    )
    return ImportReport(FORMAT, found, [vector], problems)


def _rows(
    tensors: Tensors, name: str, shape: list[int], target: Target
) -> tuple[list[str], dict[int, torch.Tensor]]:
    """One matrix: a direction per layer."""
    rows = tensors.whole(name, shape)
    if shape[0] == target.layers:
        found = f"The tensor {name!r} has a row for each of the {target.layers} layers."
        return [found], dict(enumerate(rows))
    if shape[0] == target.layers + 1:
        found = (
            f"The tensor {name!r} has {shape[0]} rows, one more than layers: it was taken for hidden states, "
            "whose first row is the embedding. That row was left out; row 1 acts after layer 0."
        )
        return [found], dict(enumerate(rows[1:]))
    raise VectorError(
        f"Its tensor {name!r} has {shape[0]} rows; the model has {target.layers} layers, so which row "
        "belongs to which layer is not clear. Save each row under a name such as layer_12."
    )


def _named(
    tensors: Tensors, shapes: dict[str, list[int]], target: Target
) -> tuple[list[str], dict[int, torch.Tensor]]:
    """One tensor per layer, or a single one for a layer that the person names."""
    chosen = target.choice.layer
    if chosen is not None:
        if len(shapes) > 1:
            raise VectorError(
                f"It holds {len(shapes)} directions; a layer can be chosen for a single one only."
            )
        (name,) = shapes
        return [f"The tensor {name!r}, for layer {chosen} as you said."], {
            chosen: _flat(tensors, name, shapes[name])
        }
    directions: dict[int, torch.Tensor] = {}
    for name, shape in shapes.items():
        layer = layer_of(name)
        if layer is None:
            raise VectorError(
                f"The name of its tensor {name[:80]!r} does not say at which layer it acts. Choose a layer "
                f"(`--layer N`, 0 to {target.layers - 1}), or rename the tensor to layer_N."
            )
        if layer in directions:
            raise VectorError(f"It holds two directions for layer {layer}; save the one that you mean.")
        if layer >= 0:
            target.check_layer(layer)
        directions[layer] = _flat(tensors, name, shape)
    if -1 in directions:
        raise VectorError("It acts before layer 0, on the embedding, where nothing can be added here.")
    layers = sorted(directions)
    example = f"{next(iter(shapes))!r}"
    return [f"{_count(len(layers))} for {span(layers)}, told from names such as {example}."], directions


def layer_of(name: str) -> int | None:
    """The 0-based layer after whose output a tensor of this name belongs; None where it does not say.

    A name such as hook_resid_pre is the stream before a layer, the output of the one before: -1 for 0.
    """
    matches = _AFTER_WORD.findall(name) or re.findall(r"\d+", name)
    if len(matches) != 1 or len(matches[0]) > 5:
        return None
    return int(matches[0]) - ("resid_pre" in name or name.rsplit(".", 1)[-1] in BEFORE)


def _flat(tensors: Tensors, name: str, shape: list[int]) -> torch.Tensor:
    return tensors.whole(name, shape).reshape(-1)


def _count(number: int) -> str:
    return "One direction" if number == 1 else f"{number} directions"


def _listed(tensors: Tensors) -> str:
    parts = []
    for name in tensors.names[:6]:
        try:
            parts.append(f"{name[:60]!r} {tensors.shape(name)}")
        except VectorError:
            parts.append(f"{name[:60]!r}")
    more = len(tensors.names) - len(parts)
    return (", ".join(parts) or "none at all") + (f" and {more} more" if more else "")
