"""Directions at length 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def unit_rows(v: torch.Tensor) -> torch.Tensor:
    """Scale [..., hidden] directions to length 1; a zero row stays zero.

    Returns fp32. Two passes in fp64, the first by the largest component, so that neither very long nor very
    short directions lose digits.
    """
    wide = v.double()
    wide = wide / wide.abs().amax(dim=-1, keepdim=True).clamp_min(5e-324)
    unit: torch.Tensor = wide / wide.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    return unit.float()
