"""Where in a model a direction or an autoencoder belongs, read from the name of a place in any spelling.

blocks.8.hook_resid_post   blocks.8.hook_out   transformer_lens
model.layers.8   transformer.h.8   gpt_neox.layers.8   model.decoder.layers.8   transformers: a whole layer
model.layers.8.output   transformer.h.8.input   nnsight, Gemma Scope 2: what goes into it or comes out
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..store import VectorError
from .report import clip

MLP_UNREAD = "The MLP's output is added to the stream and cannot be read alone"
ATTENTION_UNREAD = "What attention adds cannot be read alone"
_LAYER = re.compile(
    r"(?:[a-z_]+\.){0,3}(?:layers|layer|blocks|block|h)\.(?P<layer>[0-9]{1,5})(?:\.(?P<point>[a-z_0-9.]+))?\Z"
)
"""A layer in a model, however the modules around it are called, and a point in it."""
_AFTER = {"", "output", "hook_resid_post", "hook_out"}
BEFORE = {"input", "hook_resid_pre", "hook_in"}
_MLP = {"hook_mlp_out", "mlp.hook_out", "post_feedforward_layernorm.output"}
"""What the MLP adds to the stream; in a model with a norm after its MLP, that norm's output."""
_ATTENTION = {"hook_attn_out", "attn.hook_out"}
_INSIDE_ATTENTION = {"attn.hook_z", "hook_z", "self_attn.o_proj.input"}


@dataclass(frozen=True)
class Place:
    """Where an autoencoder was trained, as a place to add to."""

    layer: int
    site: Literal["residual", "attention"] = "residual"
    unread: str = ""
    """Why its activations cannot be read there; empty where they can."""


def place_of(name: str) -> Place:
    """The place that a name means. Raises VectorError where nothing can be added there."""
    match = _LAYER.match(name)
    if match is None:
        raise VectorError(f"It was trained at {clip(name, 80)!r}, a place that is not known here.")
    layer, point = int(match["layer"]), match["point"] or ""
    if point in _AFTER:
        return Place(layer)
    if point in BEFORE:
        if layer == 0:
            raise VectorError(f"It was trained on the embedding ({name}); nothing acts there.")
        return Place(layer - 1)
    if point in _MLP:
        return Place(layer, unread=MLP_UNREAD)
    if point in _ATTENTION:
        return Place(layer, "attention", ATTENTION_UNREAD)
    if point in _INSIDE_ATTENTION:
        raise VectorError(
            f"It was trained inside attention, before its output projection ({point}); directions there are "
            "not of the residual stream. Use one trained at hook_attn_out."
        )
    raise VectorError(f"It was trained at {clip(point, 60)}, where nothing can be added here.")
