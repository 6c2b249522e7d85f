"""All operators of a layer together; the package says in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import ablate, add, add_absolute, clamp, feature, finite, sums

if TYPE_CHECKING:
    import torch

CAP = 1.0
"""The most that is added at one layer, as a share of ||h||."""
FIELDS = ("strength", "operator", "lo", "hi")
"""What says how one vector acts on one token; `operator` is its place in `store.OPERATORS`."""
ADD, ADD_ABSOLUTE, ABLATE, CLAMP, FEATURE_SET, FEATURE_SCALE = range(6)


@dataclass(frozen=True)
class LayerVectors:
    """The vectors that act at one layer, in the order in which they compose."""

    directions: torch.Tensor
    """[vectors, hidden_size] fp32, unit length"""
    lengths: torch.Tensor
    """[vectors] fp32, what they were before"""
    readers: torch.Tensor | None = None
    """[vectors, hidden_size] fp32, rows of encoders; None where no feature is read"""
    numbers: torch.Tensor | None = None
    """[vectors, 5] fp32, `store.READER_FIELDS`"""

    @property
    def nbytes(self) -> int:
        """How much memory the tensors take."""
        tensors = (self.directions, self.lengths, self.readers, self.numbers)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def compose(
    h: torch.Tensor,
    at: LayerVectors,
    table: torch.Tensor,
    sequential: tuple[int, ...] | None = None,
    cap: float = CAP,
) -> torch.Tensor:
    """The change that these vectors make to the stream.

    Args:
        h: [tokens, hidden_size] fp32, the residual stream after the layer.
        at: the vectors.
        table: [tokens, vectors, 4] fp32, `FIELDS`; strength 0 where a vector does not act on a token.
        sequential: vectors that any token ablates or clamps; None is all of them.
        cap: see `CAP`.

    Returns:
        [tokens, hidden_size] fp32, exactly 0 for tokens whose strengths are all 0. Before it is added,
        `finite.within` has to cut it to what the stream's own type can hold.
    """
    import torch

    strength, operator, lo, hi = table.unbind(dim=-1)
    norm = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
    amounts = torch.where(operator == ADD, add.amount(strength, norm), 0.0)
    amounts = torch.where(operator == ADD_ABSOLUTE, add_absolute.amount(strength, at.lengths), amounts)
    if at.readers is not None and at.numbers is not None:
        found = feature.read(h, norm, at.readers, at.numbers)
        wanted = torch.where(
            operator == FEATURE_SET,
            feature.set_amount(strength, found, at.lengths),
            feature.scale_amount(strength, found, at.lengths),
        )
        amounts = torch.where((operator >= FEATURE_SET) & (strength != 0), wanted, amounts)
    delta: torch.Tensor = sums.weighted(finite.bounded(amounts, norm), at.directions)
    length = torch.linalg.vector_norm(delta, dim=-1, keepdim=True)
    delta = delta * (cap * norm / length.clamp_min(1e-30)).clamp(max=1.0)
    for index in range(len(at.directions)) if sequential is None else sequential:
        direction = at.directions[index]
        moved = h + delta
        along = sums.along(moved, direction)
        s, kind = strength[:, index], operator[:, index]
        size = torch.linalg.vector_norm(moved, dim=-1)
        more = torch.where(kind == ABLATE, ablate.amount(s, along), 0.0)
        more = torch.where(kind == CLAMP, clamp.amount(s, along, size, lo[:, index], hi[:, index]), more)
        delta = delta + finite.bounded(more, norm[:, 0])[:, None] * direction
    return delta
