"""What the router of a mixture of experts decides for a token: how sure it is, and which experts it takes.

A router gives each expert a logit. Its scores are their softmax, or where the model's router is made so,
their sigmoids, brought to a sum of 1. From them, or from them and a bias, it chooses k experts and a weight
for each, by which their outputs are multiplied before they are added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Scoring = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Experts:
    """The experts of one layer of a model."""

    count: int
    """Experts among which its router chooses; those that every token passes are not counted."""
    chosen: int
    """How many it takes for each token."""


@dataclass(frozen=True)
class RouterReading:
    """One router's decisions for some tokens."""

    entropy: torch.Tensor
    """[tokens] fp32, nats: of the scores"""
    top: torch.Tensor
    """[tokens] fp32: the score of the expert that has the greatest weight"""
    taken: torch.Tensor
    """[tokens] fp32: sum of the chosen experts' scores"""
    ids: torch.Tensor
    """[tokens, k] int64: the chosen experts, the one of the greatest weight first"""
    weights: torch.Tensor
    """[tokens, k] fp32: their weights"""


def read_router(
    logits: torch.Tensor | None, ids: torch.Tensor, weights: torch.Tensor, scoring: Scoring = "softmax"
) -> RouterReading:
    """Put a router's decisions into numbers.

    Args:
        logits: [tokens, experts], the router's; None where nobody has seen them, and entropy and scores are
            NaN.
        ids: [tokens, k] of the experts it chose, in any order.
        weights: [tokens, k] of their weights.
        scoring: how its scores come from its logits.
    """
    import torch

    weights, order = weights.float().sort(dim=-1, descending=True, stable=True)
    ids = ids.long().gather(-1, order)
    if logits is None:
        unknown = torch.full_like(weights[:, 0], torch.nan)
        return RouterReading(unknown, unknown, unknown, ids, weights)
    wide = logits.float()
    if scoring == "softmax":
        scores = wide.softmax(dim=-1)
    else:
        scores = wide.sigmoid()
        scores = scores / scores.sum(dim=-1, keepdim=True)
    # What was chosen from logits that are no numbers may be no expert: on a GPU an index beyond the last one
    # would end the process.
    of_chosen = scores.gather(-1, ids.clamp(0, scores.shape[-1] - 1))
    entropy: torch.Tensor = -torch.special.xlogy(scores, scores).sum(dim=-1)
    return RouterReading(entropy, of_chosen[:, 0], of_chosen.sum(dim=-1), ids, weights)


def table(reading: RouterReading) -> torch.Tensor:
    """[tokens, 3 + 2 k] fp32: all that a reading says, a metric in each column; see `column_of`."""
    import torch

    pairs = torch.stack([reading.ids.float(), reading.weights], dim=-1).flatten(-2)
    plain = torch.stack([reading.entropy, reading.top, reading.taken], dim=-1)
    return torch.cat([plain, pairs], dim=-1)


PLAIN = ("router_entropy", "router_top", "router_taken")


def column_of(name: str) -> int:
    """Where a metric of the family `router` is in a `table`. Raises ValueError where it is none of them."""
    if name in PLAIN:
        return PLAIN.index(name)
    kind, _, rank = name.partition(":")
    return len(PLAIN) + 2 * (int(rank) - 1) + ("expert", "expert_weight").index(kind)
