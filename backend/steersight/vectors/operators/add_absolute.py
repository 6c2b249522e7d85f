"""`add_absolute`: the vector itself, with the length it was made or imported with.

    h + s * v

This is what repeng, llama.cpp's control vectors and steering-vectors do, and activation addition as published
(Turner et al. 2023; Rimsky et al. 2023). For a feature of a sparse autoencoder, v is its row of the decoder:
then s is added to the feature's activation, and the reconstruction error is untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def amount(strength: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """How far along v^: strength [tokens, 1], lengths ||v|| [1 or tokens, 1] -> [tokens, 1]."""
    return strength * lengths
