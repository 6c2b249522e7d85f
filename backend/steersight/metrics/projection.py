"""How far the stream points along a steering vector: h . v / ||h||, [layers, tokens] fp32.

The unit is that of a norm-relative strength: a strength of 0.2 adds 0.2 times the stream's length along v. A
vector that acts at some layers only is looked for at the others too, with the direction of the nearest layer
that has one: so it shows where a push goes on its way up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .view import View


def after(vector: str) -> Callable[[View], torch.Tensor]:
    """The projection of the stream after the layer and its steering."""

    def compute(view: View) -> torch.Tensor:
        return _along(view, vector) / view.norms[1:].clamp_min(1e-30)

    return compute


def before(vector: str) -> Callable[[View], torch.Tensor]:
    """The projection of the stream after the layer, before its steering."""

    def compute(view: View) -> torch.Tensor:
        found = _along(view, vector) / view.norms[1:].clamp_min(1e-30)
        for layer, stream in view.unsteered.items():
            direction = _directions(view, vector)[layer - view.first]
            norm: torch.Tensor = stream.norm(dim=-1)
            found[layer - view.first] = stream @ direction / norm.clamp_min(1e-30)
        return found

    return compute


def _along(view: View, vector: str) -> torch.Tensor:
    import torch

    return torch.matmul(view.after, _directions(view, vector).unsqueeze(-1)).squeeze(-1)


def _directions(view: View, vector: str) -> torch.Tensor:
    if view.direction is None:
        raise LookupError(f"No directions of {vector!r} here.")
    return view.direction(vector, view.first, view.count)
