"""`add`: further along the vector, in units of the stream's own length.

    h + s * ||h|| * v^

One strength means the same at every token, layer and model, although lengths of streams differ by orders of
magnitude. Activation addition (Turner et al. 2023, "Steering language models with activation engineering"),
made relative to the length of h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def amount(strength: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """How far along v^: strength and norm ||h|| [tokens, 1] -> [tokens, 1]."""
    return strength * norm
