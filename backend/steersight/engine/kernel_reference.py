"""The fused kernel in plain torch operations; the Triton kernel (`kernel.py`) is held against it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..vectors.operators import LayerVectors, compose, finite

FIELDS = ("strength", "operator", "lo", "hi", "first", "last")
"""One vector on one row; first and last layer are -1 for the vector's own layers."""
NUMBERS = ("residual_norm", "update_norm", "cosine_below")
"""Metrics that are computed inside a graph."""
_TINY = 1e-30


@dataclass(frozen=True)
class Slots:
    """Room for the vectors at work, at fixed addresses; fp32."""

    directions: torch.Tensor
    """[layers, vectors, hidden_size], unit length; at a layer that is not its own, a vector's nearest one"""
    lengths: torch.Tensor
    """[layers, vectors]"""
    own: torch.Tensor
    """[layers, vectors], 1 where the layer is the vector's own"""
    readers: torch.Tensor
    """[vectors, hidden_size]"""
    numbers: torch.Tensor
    """[vectors, 5], `READER_FIELDS`"""


def fused_reference(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    below: torch.Tensor,
    slots: Slots,
    layer: int,
    table: torch.Tensor,
    unsteered: torch.Tensor,
    stream: torch.Tensor,
    numbers: torch.Tensor,
) -> None:
    """Steer `hidden` in place, keep the stream before and after, and reduce; the kernel in torch operations.

    Args:
        hidden: [rows, hidden_size], changed where a row has a strength that is not 0, else not touched.
        residual: the same shape, or None; the stream is the sum of the two.
        below: [rows, hidden_size] fp32, what entered the layer.
        slots: the vectors.
        layer: index of the layer.
        table: [rows, vectors, 6] fp32, `FIELDS`; see `operators.compose` for what they come to.
        unsteered: [rows, hidden_size] fp32, written: the stream before steering.
        stream: [rows, hidden_size] fp32, written: the stream after it.
        numbers: [rows, 3] fp32, written: `NUMBERS`.
    """
    before = hidden.float() + (residual.float() if residual is not None else 0.0)
    unsteered.copy_(before)
    first, last = table[..., 4], table[..., 5]
    acts = torch.where(first < 0, slots.own[layer] != 0, (first <= layer) & (layer <= last))
    acting = table[..., :4].clone()
    acting[..., 0] *= acts
    at = LayerVectors(slots.directions[layer], slots.lengths[layer], slots.readers, slots.numbers)
    steered = (acting[..., 0] != 0).any(dim=-1, keepdim=True)
    delta = finite.within(compose(before, at, acting), before, hidden.float(), hidden.dtype)
    hidden.copy_(torch.where(steered, hidden.float() + delta, hidden.float()))
    after = hidden.float() + (residual.float() if residual is not None else 0.0)
    stream.copy_(after)
    norm = after.norm(dim=-1)
    numbers[:, 0] = norm
    numbers[:, 1] = (before - below).norm(dim=-1)
    numbers[:, 2] = (after * below).sum(-1) / (norm * below.norm(dim=-1)).clamp_min(_TINY)
