"""Metrics of the residual stream itself. Each takes a View and gives [layers, tokens] fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .view import View


def residual_norm(view: View) -> torch.Tensor:
    """||after||: L2 norm of the residual stream after the layer."""
    return view.norms[1:]


def update_norm(view: View) -> torch.Tensor:
    """||written||: L2 norm of what attention and MLP of this layer added together."""
    return view.written_norms


def cosine_below(view: View) -> torch.Tensor:
    """after . below / (||after|| ||below||), 0 where either is a zero vector."""
    dot: torch.Tensor = (view.after * view.below).sum(dim=-1)
    return dot / (view.norms[1:] * view.norms[:-1]).clamp_min(1e-30)
