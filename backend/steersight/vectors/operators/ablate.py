"""`ablate`: take the direction out of the stream.

    h - s * (h . v^) v^

Strength 1 removes the component along v whole, a smaller one in part; a negative one makes it longer.
Directional ablation (Arditi et al. 2024, "Refusal in language models is mediated by a single direction").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def amount(strength: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """How far along v^: strength and along h . v^ [tokens, 1] -> [tokens, 1]."""
    return -strength * along
