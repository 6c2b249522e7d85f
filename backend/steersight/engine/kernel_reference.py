"""The fused kernel in plain torch operations; the Triton kernel (`kernel.py`) is held against it."""

from __future__ import annotations

import torch

from ..vectors.operators import EVERYTHING, NOTHING, Column, Rows, compose, finite
from .pool import VectorPool

FIELDS = ("slot", "strength", "operator", "lo", "hi", "first", "last")
"""How one vector acts on one row: its slot in the pool, its `Operator`, and the first and last layer, which
are -1 for the vector's own layers."""
SLOT, STRENGTH, OPERATOR, LO, HI, FIRST, LAST = range(len(FIELDS))
NUMBERS = ("residual_norm", "update_norm", "cosine_below")
"""Metrics that are computed inside a graph."""
_TINY = 1e-30


def fused_reference(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    below: torch.Tensor,
    pool: VectorPool,
    layer: int,
    acting: torch.Tensor,
    counts: torch.Tensor,
    unsteered: torch.Tensor,
    stream: torch.Tensor,
    numbers: torch.Tensor,
) -> None:
    """Steer `hidden` in place, keep the stream before and after, and reduce; the kernel in torch operations.

    Args:
        hidden: [rows, hidden_size], changed where a vector acts on a row, else not touched.
        residual: the same shape, or None; the stream is the sum of the two.
        below: [rows, hidden_size] fp32, what entered the layer.
        pool: the vectors.
        layer: index of the layer.
        acting: [rows, `MAX_AT_WORK`, 7] fp32, `FIELDS`: what acts on each row, in the order in which it
            composes; see `operators.compose` for what it comes to.
        counts: [rows] int32: how many entries of `acting` a row has. The others are not read.
        unsteered: [rows, hidden_size] fp32, written: the stream before steering.
        stream: [rows, hidden_size] fp32, written: the stream after it.
        numbers: [rows, 3] fp32, written: `NUMBERS`.
    """
    before = hidden.float() + (residual.float() if residual is not None else 0.0)
    unsteered.copy_(before)
    columns = [
        _column(pool, layer, acting[:, k], counts > k) for k in range(int(counts.max()) if len(counts) else 0)
    ]
    steered = torch.zeros(len(hidden), 1, dtype=torch.bool, device=hidden.device)
    for column in columns:
        steered = steered | (column.operator != NOTHING)
    delta = finite.within(compose(before, columns), before, hidden.float(), hidden.dtype)
    hidden.copy_(torch.where(steered, hidden.float() + delta, hidden.float()))
    after = hidden.float() + (residual.float() if residual is not None else 0.0)
    stream.copy_(after)
    norm = after.norm(dim=-1)
    numbers[:, 0] = norm
    numbers[:, 1] = (before - below).norm(dim=-1)
    numbers[:, 2] = (after * below).sum(-1) / (norm * below.norm(dim=-1)).clamp_min(_TINY)


def _column(pool: VectorPool, layer: int, entries: torch.Tensor, there: torch.Tensor) -> Column:
    """One entry of every row, [rows, 7]; `there` [rows] says which rows have one."""
    slots = torch.where(there, entries[:, SLOT], 0.0).long()
    own = pool.own[layer].index_select(0, slots) != 0
    first, last = entries[:, FIRST], entries[:, LAST]
    acts = there & torch.where(first < 0, own, (first <= layer) & (layer <= last))
    rows = pool.row_of[layer].index_select(0, slots).long()
    readers = pool.reader_of.index_select(0, slots).long()
    return Column(
        directions=Rows(pool.directions, torch.where(acts, rows, 0)),
        strength=torch.where(acts, entries[:, STRENGTH], 0.0)[:, None],
        operator=torch.where(acts, entries[:, OPERATOR], float(NOTHING))[:, None],
        lo=entries[:, LO, None],
        hi=entries[:, HI, None],
        operators=EVERYTHING,
        lengths=Rows(pool.lengths, torch.where(acts, rows, 0)),
        readers=Rows(pool.directions, torch.where(acts, readers, 0)),
        numbers=Rows(pool.numbers, slots),
    )
