"""A direction out of two kinds of examples, per layer, and how well it tells them apart. No engine is needed.

The direction is the difference in means (Rimsky et al. 2023, "Steering Llama 2 via contrastive activation
addition"; Marks & Tegmark 2023): at every layer the mean of the positive examples' streams minus that of the
negative ones'. An example is itself a mean over its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GOOD = 2.0 / 3.0
"""Depth that ties are broken towards: there a manner of speaking is decided and can still be acted on."""


@dataclass(frozen=True)
class Contrast:
    """What two kinds of examples come to, in a model of L layers."""

    directions: torch.Tensor
    """[L, hidden_size] fp32, of their own length"""
    separation: torch.Tensor
    """[L] fp32, 0 to 1: see `held_out`"""
    gap: torch.Tensor
    """[L] fp32: see `held_out`"""
    ends: torch.Tensor
    """[L, 2] fp32: mean projection h . v^ of the negative and of the positive examples"""


def contrast(positive: torch.Tensor, negative: torch.Tensor) -> Contrast:
    """From [examples, layers, hidden_size] means of both kinds; at least two of each.

    Raises: ValueError where there are fewer.
    """
    import torch

    if min(len(positive), len(negative)) < 2:
        raise ValueError("There must be two examples of each kind at least.")
    positive, negative = positive.double(), negative.double()
    directions = positive.mean(dim=0) - negative.mean(dim=0)
    separation, gap = held_out(positive, negative)
    unit = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    ends = torch.stack(
        [(negative.mean(dim=0) * unit).sum(dim=-1), (positive.mean(dim=0) * unit).sum(dim=-1)], dim=-1
    )
    return Contrast(directions.float(), separation.float(), gap.float(), ends.float())


def held_out(positive: torch.Tensor, negative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How well the direction of all other examples tells an example's side, per layer.

    Every example is projected on the difference in means of the examples but itself (and but its partner of
    the same index on the other side, which often shares its topic), from the middle between the two means.

    Args:
        positive, negative: [examples, layers, hidden_size] fp64.

    Returns:
        AUC [layers], the share of (positive, negative) pairs in the right order, ties counting half; and the
        gap [layers] between the two means of the projections in standard deviations (Cohen's d).
    """
    import torch

    def projected(mine: torch.Tensor) -> torch.Tensor:
        found = []
        for index, example in enumerate(mine):
            up, down = _without(positive, index).mean(dim=0), _without(negative, index).mean(dim=0)
            direction = up - down
            unit = direction / direction.norm(dim=-1, keepdim=True).clamp_min(1e-30)
            found.append(((example - (up + down) / 2) * unit).sum(dim=-1))
        return torch.stack(found)

    above, below = projected(positive), projected(negative)
    pairs = above[:, None] - below[None, :]
    auc = ((pairs > 0).double() + (pairs == 0).double() / 2).mean(dim=(0, 1))
    spread = ((above.var(dim=0) + below.var(dim=0)) / 2).sqrt().clamp_min(1e-12)
    return auc, (above.mean(dim=0) - below.mean(dim=0)) / spread


def _without(examples: torch.Tensor, index: int) -> torch.Tensor:
    import torch

    if index >= len(examples):
        return examples
    return torch.cat([examples[:index], examples[index + 1 :]])


def propose_layer(found: Contrast) -> int:
    """The layer to steer at: of those that separate held-out examples best, the one nearest to `GOOD`.

    Best is an AUC within 0.02 of the highest. The lowest and highest tenth of the layers are left out: below,
    the direction is about words, and above, it writes words instead of steering.
    """
    layers = len(found.separation)
    edge = max(1, layers // 10)
    inside = range(edge, max(edge + 1, layers - edge))
    best = max(float(found.separation[layer]) for layer in inside)
    good = [layer for layer in inside if float(found.separation[layer]) >= best - 0.02]
    return min(good, key=lambda layer: (abs(layer - GOOD * (layers - 1)), layer))
