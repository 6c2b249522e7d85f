"""`clamp`: keep the projection on the vector between two bounds.

With p = h . v^, the rest of the stream q = ||h - p v^||, and a bound b on p / ||h||:

    p' = b q / sqrt(1 - b^2)        h + s * (p' - p) v^        where p / ||h|| lies beyond b

The bounds are in the unit of the projection metric, the share of ||h|| that lies along v, and after a clamp
of strength 1 that metric reads the bound. Only the component along v changes. Clamping a direction's
activation is the intervention of Templeton et al. 2024 ("Scaling monosemanticity"), here for any direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LIMIT = 0.999
"""Bounds are kept within +-this: at 1 nothing but v would be left of the stream."""


def amount(
    strength: torch.Tensor, along: torch.Tensor, norm: torch.Tensor, lo: torch.Tensor, hi: torch.Tensor
) -> torch.Tensor:
    """How far along v^, all [tokens, 1]: `along` is h . v^, `norm` is ||h||, no bound is -inf or inf."""
    rest = (norm * norm - along * along).clamp_min(0.0).sqrt()
    share = along / norm.clamp_min(1e-30)
    bound = share.maximum(lo).minimum(hi)
    kept = bound.clamp(-LIMIT, LIMIT)
    wanted = kept * rest / (1.0 - kept * kept).sqrt()
    # Inside the bounds exactly nothing, not what rounding leaves of p' - p.
    return strength * (wanted - along) * (bound != share)
