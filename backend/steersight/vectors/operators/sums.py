"""Sums in which every token's result is the same whatever else is in the batch.

A matrix product may add in another order when there are more tokens or vectors, and differ in the last bit.
Then a neighbour's slider, or the number of places in a recorded graph's table, would move a reply. These go
vector by vector, in order; a vector that does not act on a token adds exactly nothing to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def along(h: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """h . v of each token: [tokens, hidden_size] and [hidden_size] -> [tokens]."""
    found: torch.Tensor = (h * direction).sum(dim=-1)
    return found


def weighted(amounts: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Sum of amounts[:, k] * directions[k]: [tokens, vectors] and [vectors, hidden_size] ->
    [tokens, hidden_size]."""
    total = amounts[:, :1] * directions[0]
    for index in range(1, len(directions)):
        total = total + amounts[:, index : index + 1] * directions[index]
    return total
