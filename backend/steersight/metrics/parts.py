"""What attention and what the MLP added. Each takes a View and gives [layers, tokens] fp32.

A layer's update u is the sum of attention's part a and the MLP's part m. Lengths do not add up, components
along u do: (a . u + m . u) / (u . u) = 1. So attention's share is a . u / (u . u), and the MLP's is 1 minus
that. It can leave [0, 1] where one part works against the other. NaN where the model's layers are no such
sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .view import View


def attention_norm(view: View) -> torch.Tensor:
    """||a||."""
    import torch

    return _unknown(view) if view.attention is None else torch.linalg.vector_norm(view.attention, dim=-1)


def mlp_norm(view: View) -> torch.Tensor:
    """||u - a||."""
    import torch

    if view.attention is None:
        return _unknown(view)
    norm: torch.Tensor = torch.linalg.vector_norm(view.written - view.attention, dim=-1)
    return norm


def attention_share(view: View) -> torch.Tensor:
    """a . u / (u . u), 0 where the layer added nothing."""
    if view.attention is None:
        return _unknown(view)
    along: torch.Tensor = (view.attention * view.written).sum(dim=-1)
    return along / view.written_norms.square().clamp_min(1e-30)


def _unknown(view: View) -> torch.Tensor:
    import torch

    return torch.full_like(view.norms[1:], torch.nan)
