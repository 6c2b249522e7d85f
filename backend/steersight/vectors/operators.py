"""What a strength does to the residual stream: pure tensor arithmetic, one function per operator.

The engine calls these inside the forward pass for all tokens of a step at once, so they are written for
capture in a CUDA graph: no wait for the device, no branch on data, no shape that depends on a value.
Invariant: a token whose strengths are all 0 gets a change of exactly 0, whatever the other tokens do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Smaller than any norm that means something in fp32, large enough that cap / _TINY stays finite.
_TINY = 1e-30


def unit_rows(v: torch.Tensor) -> torch.Tensor:
    """Scale [..., hidden] directions to length 1; a zero row stays zero.

    Returns fp32. Two passes in fp64, the first by the largest component, so that neither very long nor very
    short directions lose digits.
    """
    wide = v.double()
    wide = wide / wide.abs().amax(dim=-1, keepdim=True).clamp_min(5e-324)
    unit: torch.Tensor = wide / wide.norm(dim=-1, keepdim=True).clamp_min(_TINY)
    return unit.float()


def norm_relative_add(
    h: torch.Tensor, directions: torch.Tensor, strengths: torch.Tensor, cap: float = 1.0
) -> torch.Tensor:
    """The change that makes `h` point further along some directions, in units of its own length.

    Per token, with unit directions v_k and strengths s_k:

        d = sum_k s_k * ||h|| * v_k          delta = d * min(1, cap * ||h|| / ||d||)

    Because ||d|| = ||h|| * ||sum_k s_k v_k||, the factor needs neither ||h|| nor ||d||:
    min(1, cap / ||sum_k s_k v_k||). Measuring in the token's own length makes one strength mean the same
    at every layer and token, although their norms differ by orders of magnitude.

    Args:
        h: [tokens, hidden], the residual stream after the layer; any float type.
        directions: [vectors, hidden] fp32, unit length at this layer; zero where a vector does not act.
        strengths: [tokens, vectors] fp32, dimensionless.
        cap: largest ||delta|| / ||h||; 0 or more.

    Returns:
        delta: [tokens, hidden] fp32, exactly 0 in rows whose strengths are all 0.
    """
    push = strengths.float() @ directions.float()
    length = push.norm(dim=-1, keepdim=True)
    factor = (cap / length.clamp_min(_TINY)).clamp(max=1.0)
    delta: torch.Tensor = push * (factor * h.float().norm(dim=-1, keepdim=True))
    return delta
