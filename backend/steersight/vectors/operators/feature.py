"""`feature_set` and `feature_scale`: a feature of a sparse autoencoder, encoded, modified and decoded.

With the feature's activation f of the stream h and its row d of the decoder:

    feature_set      f' = s           feature_scale    f' = (1 + s) f
    h + (f' - f) d

That is decode(modified) + (h - decode(encoded)): only one feature differs, so everything else, the
reconstruction error too, stays as it is (Templeton et al. 2024; the encode, modify, decode of Llama Scope, He
et al. 2024). `store.FeatureReader` says how f is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import sums
from .finite import LARGEST

if TYPE_CHECKING:
    import torch


def read(h: torch.Tensor, norm: torch.Tensor, weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Activations f.

    Args:
        h: [tokens, hidden_size] fp32.
        norm: [tokens, 1], its lengths.
        weights: [1 or tokens, hidden_size], rows of the encoder.
        numbers: [1 or tokens, 5], `store.READER_FIELDS`.

    Returns:
        [tokens, 1], 0 or more.
    """
    import torch

    scale_to, gain, bias, gate_bias, threshold = numbers.unsqueeze(1).unbind(dim=-1)
    scale = torch.where(scale_to > 0, scale_to / norm.clamp_min(1e-30), 1.0)
    raw = (sums.along(h, weights) * scale).nan_to_num(nan=0.0)
    found = (raw * gain + bias).clamp(0.0, LARGEST)
    return torch.where(raw + gate_bias > threshold, found, 0.0)


def set_amount(strength: torch.Tensor, activation: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """How far along d^ until f is the strength; [tokens, 1], lengths ||d|| [1 or tokens, 1]."""
    return (strength - activation) * lengths


def scale_amount(strength: torch.Tensor, activation: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """How far along d^ until f is 1 + strength times what it was."""
    return strength * activation * lengths
