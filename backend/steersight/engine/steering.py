"""Steering in a step that runs eagerly: what acts where, as tables on the device, and the pushes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..vectors.operators import FIELDS, LayerVectors, add_absolute, compose, finite, sums
from .plan import Steered
from .transfer import indices, to_device

if TYPE_CHECKING:
    import torch

    from .bank import VectorBank


@dataclass(frozen=True)
class Steering:
    """The steered tokens of a step at one layer."""

    rows: torch.Tensor
    """[steered] int64: indices of the tokens to change; the others are not touched at all."""
    table: torch.Tensor
    """[steered, vectors, 4] fp32, `operators.FIELDS`"""
    at: LayerVectors
    sequential: tuple[int, ...]
    """Vectors that are ablated or clamped by some token."""


@dataclass(frozen=True)
class SteeringTables:
    """Everything that acts in one step, by layer."""

    residual: dict[int, Steering] = field(default_factory=dict)
    attention: dict[int, Steering] = field(default_factory=dict)
    """What is added to attention's part."""


def steering_tables(
    steered: Sequence[Steered], bank: VectorBank, layers: int, device: torch.device
) -> SteeringTables:
    """Put what a plan steers on the device of a model of so many layers."""
    return SteeringTables(
        *(
            _by_layer([piece for piece in steered if bank.vectors[piece[1].vector].attention == attention],
                      bank, layers, device)
            for attention in (False, True)
        )
    )  # fmt: skip


def _by_layer(
    pieces: list[Steered], bank: VectorBank, layers: int, device: torch.device
) -> dict[int, Steering]:
    tables: dict[int, Steering] = {}
    made: dict[tuple[int, ...], Steering] = {}
    for layer in range(layers) if pieces else ():
        acting = tuple(i for i, (_, action) in enumerate(pieces) if bank.acts(action, layer))
        if not acting:
            continue
        names = bank.sorted({pieces[i][1].vector for i in acting})
        at = bank.at(layer, names)
        if acting not in made:
            made[acting] = _table([pieces[i] for i in acting], names, at, device)
        # The same tokens and vectors as at another layer: only the directions are this layer's.
        tables[layer] = replace(made[acting], at=at)
    return tables


def _table(pieces: list[Steered], names: tuple[str, ...], at: LayerVectors, device: torch.device) -> Steering:
    import numpy as np
    import torch

    rows = sorted({index for where, _ in pieces for index in where})
    place = {index: n for n, index in enumerate(rows)}
    table = np.zeros((len(rows), len(names), len(FIELDS)), dtype=np.float32)
    sequential = set()
    for where, action in pieces:
        column = names.index(action.vector)
        first = place[where.start]
        table[first : first + len(where), column] = (action.strength, action.code, action.lo, action.hi)
        if action.operator in ("ablate", "clamp"):
            sequential.add(column)
    return Steering(
        rows=indices(rows, device),
        table=to_device(table, torch.float32, device),
        at=at,
        sequential=tuple(sorted(sequential)),
    )


def push(hidden: torch.Tensor, residual: torch.Tensor | None, steering: Steering) -> None:
    """Steer the stream after a layer, hidden + residual [tokens, hidden_size], by changing `hidden`."""
    mine = hidden[steering.rows].float()
    stream = mine if residual is None else mine + residual[steering.rows]
    delta = compose(stream, steering.at, steering.table, steering.sequential)
    delta = finite.within(delta, stream, mine, hidden.dtype)
    # Rounded once, after the sum, as in a replayed graph: the two must not differ in half precision.
    hidden.index_copy_(0, steering.rows, (mine + delta).to(hidden.dtype))


def push_attention(added: torch.Tensor, steering: Steering) -> None:
    """Add to what attention adds, [tokens, hidden_size], in place."""
    pushes = add_absolute.amount(steering.table[..., 0], steering.at.lengths)
    mine = added[steering.rows].float()
    most = pushes.clamp(-finite.FURTHEST, finite.FURTHEST)
    delta = finite.within(sums.weighted(most, steering.at.directions), mine, mine, added.dtype)
    added.index_copy_(0, steering.rows, (mine + delta).to(added.dtype))
