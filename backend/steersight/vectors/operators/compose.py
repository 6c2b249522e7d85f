"""All operators of a layer together; the package says in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import ablate, add, add_absolute, clamp, feature, finite, sums
from .code import SEQUENTIAL, Operator

if TYPE_CHECKING:
    import torch

CAP = 1.0
"""The most that is added at one layer, as a share of ||h||."""
_ADDED = frozenset(Operator) - SEQUENTIAL


@dataclass(frozen=True)
class Rows:
    """One row of a table for each token, which may be the same for all of them."""

    table: torch.Tensor
    """[rows, width] fp32"""
    index: int | torch.Tensor
    """The row of every token, or [tokens] int64."""

    def __call__(self) -> torch.Tensor:
        """[1 or tokens, width]. The same numbers either way: a row that all share is not copied."""
        if isinstance(self.index, int):
            return self.table[self.index : self.index + 1]
        return self.table.index_select(0, self.index)


@dataclass(frozen=True)
class Column:
    """One vector of each token at one layer: the k-th of those that act on it, for some k.

    Tokens with fewer vectors have `NOTHING` in its place, and then strength 0 and any row.
    """

    directions: Rows
    """Unit length, or zeros where the vector was."""
    strength: torch.Tensor
    """[tokens, 1] fp32"""
    operator: torch.Tensor
    """[tokens, 1] fp32, an `Operator` or `NOTHING`."""
    lo: torch.Tensor
    """[tokens, 1] fp32, for `clamp`"""
    hi: torch.Tensor
    operators: frozenset[int]
    """All that `operator` may hold. What is not among them is not computed."""
    lengths: Rows | None = None
    """[.., 1] what the directions were long; needed by `add_absolute` and `FEATURES`."""
    readers: Rows | None = None
    """[.., hidden_size] rows of encoders; needed by `FEATURES`."""
    numbers: Rows | None = None
    """[.., 5] `store.READER_FIELDS`; needed by `FEATURES`."""

    def added(self, h: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """How far along the direction, of the operators that are summed: [tokens, 1].

        `h` is [tokens, hidden_size], `norm` its lengths [tokens, 1].
        """
        import torch

        amount: torch.Tensor | None = None
        for operator in sorted(self.operators & _ADDED):
            wanted = self._amount(Operator(operator), h, norm)
            if self.operators == {operator}:
                return wanted
            amount = torch.where(self.operator == operator, wanted, 0.0 if amount is None else amount)
        return torch.zeros_like(norm) if amount is None else amount

    def _amount(self, operator: Operator, h: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        if operator is Operator.ADD:
            return add.amount(self.strength, norm)
        if self.lengths is None:
            raise ValueError(f"{operator.word} needs the lengths of its vectors.")
        if operator is Operator.ADD_ABSOLUTE:
            return add_absolute.amount(self.strength, self.lengths())
        if self.readers is None or self.numbers is None:
            raise ValueError(f"{operator.word} needs the readers of its vectors.")
        found = feature.read(h, norm, self.readers(), self.numbers())
        set_to = operator is Operator.FEATURE_SET
        return (feature.set_amount if set_to else feature.scale_amount)(self.strength, found, self.lengths())

    def taken(self, moved: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """How far along the direction, of `SEQUENTIAL`: [tokens, 1].

        `moved` is the stream as it is by now, [tokens, hidden_size].
        """
        import torch

        along = sums.along(moved, directions)
        more: torch.Tensor | float = 0.0
        if Operator.ABLATE in self.operators:
            wanted = ablate.amount(self.strength, along)
            more = torch.where(self.operator == Operator.ABLATE, wanted, more)
        if Operator.CLAMP in self.operators:
            size = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
            wanted = clamp.amount(self.strength, along, size, self.lo, self.hi)
            more = torch.where(self.operator == Operator.CLAMP, wanted, more)
        return torch.as_tensor(more)


def compose(h: torch.Tensor, columns: Sequence[Column], cap: float = CAP) -> torch.Tensor:
    """The change that vectors make to the stream.

    Every token's sums go vector by vector in the order of its columns, so that neither the other tokens nor
    the number of columns moves a bit of it.

    Args:
        h: [tokens, hidden_size] fp32, the residual stream after the layer.
        columns: what acts on each token, in the order in which its vectors compose.
        cap: see `CAP`.

    Returns:
        [tokens, hidden_size] fp32, exactly 0 for tokens on which nothing acts. Before it is added,
        `finite.within` has to cut it to what the stream's own type can hold.
    """
    import torch

    norm = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
    delta: torch.Tensor | None = None
    for column in columns:
        if column.operators & _ADDED:
            push = finite.bounded(column.added(h, norm), norm) * column.directions()
            delta = push if delta is None else delta + push
    if delta is None:
        delta = torch.zeros_like(h)
    else:
        length = torch.linalg.vector_norm(delta, dim=-1, keepdim=True)
        delta = delta * (cap * norm / length.clamp_min(1e-30)).clamp(max=1.0)
    for column in columns:
        if column.operators & SEQUENTIAL:
            directions = column.directions()
            more = column.taken(h + delta, directions)
            delta = delta + finite.bounded(more, norm) * directions
    return delta
