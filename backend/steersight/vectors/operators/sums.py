"""Sums in which every token's result is the same whatever else is in the batch.

A matrix product may add in another order when there are more tokens or vectors, and differ in the last bit.
Then a neighbour's slider, or the room in a recorded graph's table, would move a reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def along(h: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """h . v of each token: [tokens, hidden_size] and [1 or tokens, hidden_size] -> [tokens, 1]."""
    found: torch.Tensor = (h * directions).sum(dim=-1, keepdim=True)
    return found
