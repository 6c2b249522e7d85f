"""How a vector changes the residual stream. Pure torch, in place nowhere, no branch on data.

Written so that the same code can run eagerly and inside a captured CUDA graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def norm_relative_add(
    h: torch.Tensor, directions: torch.Tensor, strengths: torch.Tensor, cap: float = 1.0
) -> torch.Tensor:
    """What to add to the stream: strength times the token's own norm along each direction.

    delta = ||h|| * min(1, cap / ||u||) * u   with   u = sum_k strength_k * v_hat_k

    Scaling with ||h|| makes one slider mean the same at a layer whose stream is short and at one where it is
    long; the cap keeps several sliders together from drowning the token.

    Args:
        h: [tokens, hidden_size] fp32, the stream after the layer.
        directions: [vectors, hidden_size] fp32, unit length.
        strengths: [tokens, vectors] fp32; 0 gives a delta of exactly 0.
        cap: largest allowed ||delta|| / ||h||.

    Returns: delta [tokens, hidden_size] fp32.
    """
    u = strengths @ directions
    size = u.norm(dim=-1, keepdim=True)
    factor = (cap / size.clamp_min(1e-30)).clamp_max(1.0)
    return h.norm(dim=-1, keepdim=True) * factor * u
