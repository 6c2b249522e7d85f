"""What is recorded into CUDA graphs, in its plain form, against the eager observer's own arithmetic.

The Triton kernel was held against the same plain form on an H100; docs/performance.md says when and how.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersight.engine.acting import ActingTable
from steersight.engine.bank import VectorBank
from steersight.engine.graph import GraphPass
from steersight.engine.kernel_reference import NUMBERS, fused_reference
from steersight.engine.layout import Layout
from steersight.engine.steering import push, steering_tables
from steersight.metrics import Registry, View
from steersight.vectors.action import Action
from steersight.vectors.store import OPERATORS, FeatureReader

from .banks import banked, make_bank, steering_vector

SIZE, LAYERS = 24, 3
READER = {"scale_to": 3.0, "gain": 1.5, "bias": 0.1, "gate_bias": 0.2, "threshold": 0.05}


def rows(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


def _bank() -> VectorBank:
    tensors = {
        name: {layer: rows(seed + layer, 1)[0] * 2.0 for layer in layers}
        for seed, (name, layers) in enumerate({"a": [1], "b": [0, 2], "f": [1], "g": [0]}.items(), start=10)
    }
    weight = rows(5, 1)[0]
    readers = {
        "f": FeatureReader(weight, **READER), "g": FeatureReader(weight, **READER | {"scale_to": 0.0})
    }  # fmt: skip
    return make_bank(tensors, LAYERS, readers)


BANK = _bank()


def layout() -> Layout:
    layers = [torch.nn.Identity() for _ in range(LAYERS)]
    return Layout(layers, "pair", attention=None, final=[], unembed=lambda stream: stream)


actions = st.builds(
    Action,
    vector=st.sampled_from("abfg"), strength=st.floats(-3, 3, width=32).filter(bool),
    operator=st.sampled_from(OPERATORS), lo=st.sampled_from([-math.inf, -0.1]),
    hi=st.sampled_from([0.1, math.inf]),
    layers=st.sampled_from([None, (0, 1), (2, 2)]),
).filter(lambda action: not action.operator.startswith("feature") or action.vector in "fg")  # fmt: skip


@settings(deadline=None)
@given(
    st.booleans(), st.booleans(), st.integers(0, LAYERS - 1),
    st.lists(st.lists(actions, max_size=4, unique_by=lambda action: action.vector), min_size=1, max_size=5),
)  # fmt: skip
def test_the_plain_kernel_is_the_eager_pass(
    paired: bool, half: bool, layer: int, acting: Sequence[Sequence[Action]]
) -> None:
    count, dtype = len(acting), torch.bfloat16 if half else torch.float32
    acting = [BANK.composed(mine) for mine in acting]
    graph = GraphPass(layout(), BANK, rows=8, hidden_size=SIZE, device=torch.device("cpu"))
    graph.upload(acting)
    hidden, below = rows(1, count).to(dtype), rows(3, count)
    residual = rows(2, count).to(dtype) if paired else None
    before = hidden.float() + (0 if residual is None else residual.float())
    expected, original = hidden.clone(), hidden.clone()
    steering = steering_tables(
        [(range(row, row + 1), action) for row, mine in enumerate(acting) for action in mine],
        BANK,
    ).residual.get(layer)
    if steering is not None:
        push(expected, residual, steering)

    unsteered, stream = torch.empty(count, SIZE), torch.empty(count, SIZE)
    numbers = torch.empty(count, len(NUMBERS))
    fused_reference(
        hidden,
        residual,
        below,
        BANK.pool,
        layer,
        graph.acting.entries[:count],
        graph.acting.counts[:count],
        unsteered,
        stream,
        numbers,
    )

    free = [row for row in range(count) if steering is None or row not in steering.rows.tolist()]
    assert torch.equal(hidden[free], original[free]), "a row without strengths was touched"
    assert torch.equal(hidden, expected), "the two round differently"
    assert torch.equal(unsteered, before)
    assert torch.equal(stream, hidden.float() + (0 if residual is None else residual.float()))
    view = View(0, torch.stack([below, stream]), [("r", 0, count)], unsteered={0: unsteered})
    for index, name in enumerate(NUMBERS):
        compute = Registry()[name].compute
        assert compute is not None
        assert torch.allclose(numbers[:, index], compute(view)[0], atol=1e-4, rtol=1e-4), name


def test_what_acts_in_a_step_replaces_what_acted_in_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []
    copy = ActingTable._copy
    monkeypatch.setattr(ActingTable, "_copy", lambda table, count: copies.append(count) or copy(table, count))
    bank = _bank()
    slots = {name: vector.slot for name, vector in bank.vectors.items()}
    table = ActingTable(bank, rows=4)
    b, f = Action("b", 0.5), Action("f", 2.0, "feature_set", layers=(0, 1))
    table.fill([[b], [], bank.composed([f, b])])
    assert table.counts.tolist() == [1, 0, 2, 0]
    assert table.entries[2, 0].tolist() == [slots["b"], 0.5, 0.0, -math.inf, math.inf, -1.0, -1.0]
    assert table.entries[2, 1].tolist() == [slots["f"], 2.0, 4.0, -math.inf, math.inf, 0.0, 1.0]
    table.fill([[b], [], bank.composed([f, b])])
    assert copies == [3], "what had not changed was copied"
    table.fill([[], [Action("a", 1.0)]])
    assert table.counts.tolist() == [0, 1, 0, 0]
    assert table.entries[1, 0, 0] == slots["a"]
    # Another vector has the slot now, and the run's actions read as before.
    bank.remove({"a"})
    bank.add("a", banked(steering_vector("a", {0: rows(40, 1)[0]}), bank.pool))
    bank.remove({"b"})
    bank.add("b", banked(steering_vector("b", {0: rows(41, 1)[0]}), bank.pool))
    table.fill([[], [Action("a", 1.0)], [b]])
    assert table.counts.tolist() == [0, 1, 1, 0]
    assert table.entries[2, 0, 0] == bank.vectors["b"].slot
    table.clear()
    assert not table.counts.any()
    table.fill([[], [Action("a", 1.0)]])
    assert table.counts.tolist() == [0, 1, 0, 0]
    table.fill([])
    assert not table.counts.any()
