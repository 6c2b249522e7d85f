"""Effective rank of the last few residuals of a run: in how many directions the stream has moved lately.

After Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007): with the singular
values s of a matrix and p = s / sum s, it is exp(-sum p log p). The matrix is a window of consecutive
positions, each scaled to length 1, so that one long activation does not stand for all.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from steersight.metrics import Scale, View
from steersight.metrics.own import metric

WINDOW = 8
REMEMBERED = 64
histories: OrderedDict[str, dict[int, torch.Tensor]] = OrderedDict()
"""run -> layer -> [up to WINDOW - 1, hidden_size]: what came before, scaled to length 1."""


@metric(
    id="effective_rank",
    label=f"Effective rank of {WINDOW} positions",
    description=f"Effective rank of the last {WINDOW} residuals, each scaled to length 1.",
    scale=Scale("sequential", lo=1.0, hi=float(WINDOW)),
    cost="a singular value decomposition per layer and token",
)
def effective_rank(residuals: torch.Tensor, context: View) -> torch.Tensor:
    """[layers, tokens], from 1 (one direction) to WINDOW (all orthogonal, of equal weight)."""
    unit = torch.nn.functional.normalize(residuals, dim=-1)
    out = torch.empty(residuals.shape[:2], device=residuals.device)
    offset = 0
    for run, start, count in context.runs:
        mine = unit[:, offset : offset + count]
        layers = range(context.first, context.first + context.count)
        known = histories.setdefault(run, {})
        none = mine[0, :0]
        past = torch.stack([known.get(layer, none) if start else none for layer in layers])
        line = torch.cat([past, mine], dim=1)
        for at in range(count):
            end = past.shape[1] + at + 1
            values = torch.linalg.svdvals(line[:, max(0, end - WINDOW) : end])
            share = values / values.sum(dim=-1, keepdim=True)
            out[:, offset + at] = torch.special.entr(share).sum(dim=-1).exp()
        known.update(zip(layers, line[:, -(WINDOW - 1) :].clone(), strict=True))
        if len(histories) > REMEMBERED:
            histories.popitem(last=False)
        offset += count
    return out
