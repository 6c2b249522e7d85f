"""Steering in a step that runs eagerly: what acts where, as short lists on the device, and the pushes.

Each steered token has a list of the vectors at work on it, as long as they are many. The lists stand side by
side in columns (`operators.Column`), so that a layer costs as much as the longest of them, however many
different vectors the batch has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..vectors.action import MAX_AT_WORK
from ..vectors.operators import FEATURES, NOTHING, Column, Operator, Rows, add_absolute, compose, finite
from .plan import Steered
from .transfer import indices, to_device

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from .bank import VectorBank
    from .pool import VectorPool

_NEED_LENGTHS = FEATURES | {Operator.ADD_ABSOLUTE}


@dataclass(frozen=True)
class Steering:
    """What acts at one layer in a step."""

    rows: torch.Tensor
    """[steered] int64: batch indices of the tokens to change; the others are not touched at all."""
    columns: tuple[Column, ...]
    """What acts on them, in the order in which it composes."""


@dataclass(frozen=True)
class SteeringTables:
    """Everything that acts in one step, by layer."""

    residual: dict[int, Steering] = field(default_factory=dict)
    attention: dict[int, Steering] = field(default_factory=dict)
    """What is added to attention's part."""


def steering_tables(steered: Sequence[Steered], bank: VectorBank) -> SteeringTables:
    """Put what a plan steers on the device of the bank's pool."""
    parts: tuple[list[Steered], list[Steered]] = ([], [])
    for piece in steered:
        parts[bank.vectors[piece[1].vector].attention].append(piece)
    return SteeringTables(*(_by_layer(part, bank) for part in parts))


def _by_layer(pieces: list[Steered], bank: VectorBank) -> dict[int, Steering]:
    acting: dict[int, list[int]] = {}
    for index, (_, action) in enumerate(pieces):
        for layer in bank.layers_of(action):
            acting.setdefault(layer, []).append(index)
    lists: dict[tuple[int, ...], _Lists] = {}
    tables: dict[int, Steering] = {}
    for layer, mine in acting.items():
        key = tuple(mine)
        if key not in lists:
            lists[key] = _Lists([pieces[index] for index in mine], bank)
        # The same tokens and vectors as at another layer: only the directions are this layer's.
        tables[layer] = lists[key].at(layer)
    return tables


class _Lists:
    """What acts on each of some tokens, wherever the same does: everything but the directions."""

    def __init__(self, pieces: list[Steered], bank: VectorBank) -> None:
        import torch

        self._pool = bank.pool
        # Tokens of one piece are neighbours among the sorted ones, as they are in the batch.
        tokens = np.unique(np.concatenate([np.arange(where.start, where.stop) for where, _ in pieces]))
        firsts = np.searchsorted(tokens, [where.start for where, _ in pieces]).tolist()
        used = np.zeros(len(tokens), dtype=np.int64)
        self._slots = np.zeros((MAX_AT_WORK, len(tokens)), dtype=np.int64)
        table = np.zeros((MAX_AT_WORK, 4, len(tokens)), dtype=np.float32)
        table[:, 1] = NOTHING
        for first, (where, action) in zip(firsts, pieces, strict=True):
            mine = np.arange(first, first + len(where)) if len(where) > 1 else first
            column = used[mine]
            self._slots[column, mine] = bank.vectors[action.vector].slot
            table[column, :, mine] = (action.strength, action.code, action.lo, action.hi)
            used[mine] += 1
        self._count = int(used.max())
        self._used = used
        self._operators = [frozenset(np.unique(table[k, 1]).astype(int).tolist()) for k in range(self._count)]
        self._rows = indices(tokens, self._pool.device)
        on_device = to_device(table[: self._count], torch.float32, self._pool.device)
        self._numbers = [[numbers[:, None] for numbers in column.unbind()] for column in on_device.unbind()]

    def at(self, layer: int) -> Steering:
        """With the directions of one layer."""
        return Steering(self._rows, tuple(self._column(k, layer) for k in range(self._count)))

    def _column(self, k: int, layer: int) -> Column:
        pool = self._pool
        slots = self._slots[k]
        # Where a token's list has ended any row will do: one that all the others share, if they do.
        slots = np.where(self._used > k, slots, slots[int(np.argmax(self._used > k))])
        rows = _index(pool.host_row_of[layer][slots], pool)
        operators = self._operators[k]
        reads = bool(operators & FEATURES)
        strength, operator, lo, hi = self._numbers[k]
        return Column(
            Rows(pool.directions, rows), strength, operator, lo, hi, operators,
            lengths=Rows(pool.lengths, rows) if operators & _NEED_LENGTHS else None,
            readers=Rows(pool.directions, _index(pool.host_reader_of[slots], pool)) if reads else None,
            numbers=Rows(pool.numbers, _index(slots, pool)) if reads else None,
        )  # fmt: skip


def _index(rows: NDArray[np.int64], pool: VectorPool) -> int | torch.Tensor:
    """One row where all tokens have the same."""
    if (rows == rows[0]).all():
        return int(rows[0])
    return indices(rows, pool.device)


def push(hidden: torch.Tensor, residual: torch.Tensor | None, steering: Steering) -> None:
    """Steer the stream after a layer, hidden + residual [tokens, hidden_size], by changing `hidden`."""
    mine = hidden[steering.rows].float()
    stream = mine if residual is None else mine + residual[steering.rows]
    delta = finite.within(compose(stream, steering.columns), stream, mine, hidden.dtype)
    # Rounded once, after the sum, as in a replayed graph: the two must not differ in half precision.
    hidden.index_copy_(0, steering.rows, (mine + delta).to(hidden.dtype))


def push_attention(added: torch.Tensor, steering: Steering) -> None:
    """Add to what attention adds, [tokens, hidden_size], in place. Only `add_absolute` acts there."""
    mine = added[steering.rows].float()
    delta: torch.Tensor | None = None
    for column in steering.columns:
        if column.lengths is not None:
            amount = add_absolute.amount(column.strength, column.lengths())
            push = amount.clamp(-finite.FURTHEST, finite.FURTHEST) * column.directions()
            delta = push if delta is None else delta + push
    if delta is not None:
        delta = finite.within(delta, mine, mine, added.dtype)
        added.index_copy_(0, steering.rows, (mine + delta).to(added.dtype))
