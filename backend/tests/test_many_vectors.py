"""256 runs, each with vectors and strengths of its own, in one batch: each is what it would be alone."""

from __future__ import annotations

import math
import random

import pytest
import torch

from steersight.engine.graph import GraphPass
from steersight.engine.kernel_reference import NUMBERS, fused_reference
from steersight.engine.layout import Layout
from steersight.engine.steering import push, steering_tables
from steersight.vectors.action import MAX_AT_WORK, Action
from steersight.vectors.store import OPERATORS

from .banks import make_bank

RUNS, SIZE, LAYERS = 256, 576, 3


def rows(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


BANK = make_bank({f"v{run}": {run % LAYERS: rows(run, 1)[0]} for run in range(RUNS)}, LAYERS)
LAYOUT = Layout([torch.nn.Identity()] * LAYERS, "pair", attention=None, final=[], unembed=lambda h: h)


def drawn(chance: random.Random, run: int) -> tuple[Action, ...]:
    """Up to as many as one run may have, its own vector always among them."""
    others = chance.sample(range(RUNS), chance.choice([0, 0, 1, 3, MAX_AT_WORK - 1]))
    return BANK.composed(
        Action(
            f"v{name}", chance.uniform(-2, 2), chance.choice(OPERATORS[:4]), lo=-0.05, hi=0.05,
            layers=chance.choice([None, (0, LAYERS - 1), (1, 1)]),
        )
        for name in {run, *others}
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_of_256_runs_is_what_it_is_alone_eagerly_and_replayed(dtype: torch.dtype) -> None:
    chance = random.Random(1)
    acting = [drawn(chance, run) for run in range(RUNS)]
    hidden, residual, below = rows(1001, RUNS).to(dtype), rows(1002, RUNS).to(dtype), rows(1003, RUNS)
    graph = GraphPass(LAYOUT, BANK, RUNS, SIZE, torch.device("cpu"))
    graph.upload(acting)
    together = steering_tables(
        [(range(run, run + 1), action) for run, mine in enumerate(acting) for action in mine], BANK
    )
    changed = 0
    for layer in range(LAYERS):
        eager, replayed = hidden.clone(), hidden.clone()
        push(eager, residual, together.residual[layer])
        fused_reference(
            replayed, residual, below, BANK.pool, layer, graph.acting.entries, graph.acting.counts,
            torch.empty(RUNS, SIZE), torch.empty(RUNS, SIZE), torch.empty(RUNS, len(NUMBERS)),
        )  # fmt: skip
        assert torch.equal(eager, replayed)
        for run in range(RUNS):
            alone = hidden[run : run + 1].clone()
            found = steering_tables([(range(1), action) for action in acting[run]], BANK).residual.get(layer)
            if found is not None:
                push(alone, residual[run : run + 1], found)
                changed += 1
            assert torch.equal(eager[run], alone[0]), f"run {run} after layer {layer}"
    assert changed > RUNS
    assert math.isfinite(float(eager.float().sum()))
