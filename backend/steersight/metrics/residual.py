"""Metrics of the residual stream itself. Each takes a LayerView and gives [tokens] fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .registry import LayerView


def residual_norm(view: LayerView) -> torch.Tensor:
    """||after||: L2 norm of the residual stream after the layer."""
    norm: torch.Tensor = view.after.norm(dim=-1)
    return norm


def update_norm(view: LayerView) -> torch.Tensor:
    """||written||: L2 norm of what attention and MLP of this layer added together."""
    norm: torch.Tensor = view.written.norm(dim=-1)
    return norm


def cosine_below(view: LayerView) -> torch.Tensor:
    """after . below / (||after|| ||below||), 0 where either is a zero vector."""
    dot: torch.Tensor = (view.after * view.below).sum(dim=-1)
    scale: torch.Tensor = view.after.norm(dim=-1) * view.below.norm(dim=-1)
    return dot / scale.clamp_min(1e-30)
