"""Whatever acts, however strongly: a finite stream stays finite, in every dtype, eagerly and replayed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersight.engine.graph import GraphPass
from steersight.engine.kernel_reference import NUMBERS, fused_reference
from steersight.engine.layout import Layout
from steersight.engine.steering import Steering, push, push_attention, steering_tables
from steersight.metrics import Registry
from steersight.protocol.messages import MAX_STRENGTH
from steersight.vectors.action import MAX_AT_WORK, Action
from steersight.vectors.operators import Column, Operator, Rows, compose, finite
from steersight.vectors.store import OPERATORS, FeatureReader, SteeringVector, VectorError

from .banks import make_bank

SIZE, LAYERS = 16, 2
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
HUGE = 1e37
"""Of a vector's length and a feature's encoder: a file may hold it."""


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layout() -> Layout:
    layers = [torch.nn.Identity() for _ in range(LAYERS)]
    return Layout(layers, "pair", attention=None, final=[], unembed=lambda stream: stream)


BANK = make_bank(
    {name: {1: random(seed, SIZE) * (HUGE if name in "xy" else 1.0)} for seed, name in enumerate("abfxy")},
    LAYERS,
    {
        "f": FeatureReader(random(7, SIZE), bias=1.0, gate_bias=1.0, scale_to=3.0),
        "y": FeatureReader(random(8, SIZE) * HUGE, bias=1.0, gate_bias=1.0, gain=HUGE),
    },
)
strengths = st.floats(-MAX_STRENGTH, MAX_STRENGTH, width=32).filter(bool) | st.sampled_from(
    [MAX_STRENGTH, -MAX_STRENGTH]
)
actions = st.builds(
    Action, vector=st.sampled_from("abfxy"), strength=strengths, operator=st.sampled_from(OPERATORS),
    lo=st.sampled_from([-math.inf, -1.0, -0.1]), hi=st.sampled_from([0.1, 1.0, math.inf]),
).filter(lambda action: not action.operator.startswith("feature") or action.vector in "fy")  # fmt: skip
scales = st.sampled_from([0.0, 1e-30, 1e-4, 1.0, 300.0, 2e4, math.inf])
"""Of the stream's components; infinity stands for the largest number of the dtype that norms can read."""


def stream_of(scale: float, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """[3, SIZE] finite numbers of a dtype."""
    largest = min(torch.finfo(dtype).max, 1e12)
    return (random(seed, 3, SIZE) * min(scale, largest)).clamp(-largest, largest).to(dtype)


def column(
    direction: torch.Tensor, operator: Operator, strength: float, length: float = 1.0, tokens: int = 1
) -> Column:
    """One vector [1, SIZE] that acts on all of some tokens."""
    same = torch.ones(tokens, 1)
    return Column(
        Rows(direction, 0), strength * same, operator * same, 0.0 * same, 0.0 * same, frozenset({operator}),
        lengths=Rows(torch.tensor([[length]]), 0),
    )  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(DTYPES), st.booleans(), scales,
    st.lists(st.lists(actions, max_size=5, unique_by=lambda a: a.vector), min_size=3, max_size=3),
)  # fmt: skip
def test_a_finite_stream_stays_finite_on_both_ways(
    dtype: torch.dtype, paired: bool, scale: float, acting: Sequence[Sequence[Action]]
) -> None:
    hidden = stream_of(scale / 2, dtype, 1)
    residual = stream_of(scale / 2, dtype, 2) if paired else None
    before = hidden.float() + (0.0 if residual is None else residual.float())
    if not (before.abs() <= torch.finfo(dtype).max).all():
        return  # the model itself has left the range
    acting = [BANK.composed(mine) for mine in acting]
    graph = GraphPass(layout(), BANK, rows=3, hidden_size=SIZE, device=torch.device("cpu"))
    graph.upload(acting)
    replayed, stream = hidden.clone(), torch.empty(3, SIZE)
    fused_reference(
        replayed, residual, before.roll(1, dims=0), BANK.pool, 1, graph.acting.entries, graph.acting.counts,
        torch.empty(3, SIZE), stream, torch.empty(3, len(NUMBERS)),
    )  # fmt: skip
    pushed = hidden.clone()
    steering = steering_tables(
        [(range(row, row + 1), action) for row, mine in enumerate(acting) for action in mine], BANK
    ).residual.get(1)
    if steering is not None:
        push(pushed, residual, steering)
    for way, result in (("replayed", replayed), ("eager", pushed)):
        assert result.isfinite().all(), way
        # As the next layer reads it: the sum, rounded to the stream's own type.
        total = result if residual is None else (result.float() + residual.float()).to(dtype)
        assert total.isfinite().all(), way
    assert stream.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_fits_is_pushed_bit_for_bit_as_before(dtype: torch.dtype) -> None:
    stream, hidden = stream_of(50.0, dtype, 1).float(), stream_of(20.0, dtype, 2).float()
    delta = random(3, 3, SIZE) * 100.0
    assert torch.equal(finite.within(delta, stream, hidden, dtype), delta)


def test_a_strong_push_ends_at_half_of_what_the_type_holds() -> None:
    """1000 times the direction's part of the stream, in half precision, where it came to infinity."""
    direction = torch.zeros(1, SIZE)
    direction[0, 3] = 1.0
    h = torch.full((1, SIZE), 200.0)
    h[0, 5] = 60000.0  # the model's own: left where it is
    delta = compose(h, [column(direction, Operator.ABLATE, -MAX_STRENGTH)])
    assert (h + delta)[0, 3] > torch.finfo(torch.float16).max
    after = (h + finite.within(delta, h, h, torch.float16)).half()
    assert after[0, 3] == 32752
    assert after[0, 5] == 60000
    assert torch.equal(after[0, [0, 1, 2, 4]], h[0, [0, 1, 2, 4]].half())


def test_an_amount_beyond_fp32_pushes_as_far_as_may_be_and_does_not_vanish() -> None:
    """1000 times a vector of length 1e37: the sum of what is added is cut to ||h||, not lost."""
    h, unit = random(1, 1, SIZE), torch.eye(SIZE)[:1]
    delta = compose(h, [column(unit, Operator.ADD_ABSOLUTE, MAX_STRENGTH, HUGE)])
    assert torch.allclose(delta, h.norm() * unit)


def test_one_ablation_after_the_other_does_not_leave_fp32() -> None:
    """Each would make the stream along the direction 1000 times longer: 16 of them, 1e48 times."""
    h, unit = random(1, 1, SIZE), torch.eye(SIZE)[:1]
    delta = compose(h, [column(unit, Operator.ABLATE, -MAX_STRENGTH)] * MAX_AT_WORK)
    assert delta.isfinite().all()
    assert 1e5 * h.norm() < delta[0, 0].abs() < 16e5 * h.norm()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_push_in_attention_stays_finite(dtype: torch.dtype) -> None:
    part = stream_of(30.0, dtype, 4)
    columns = tuple(
        column(torch.eye(SIZE)[k : k + 1], Operator.ADD_ABSOLUTE, MAX_STRENGTH, 3e38, tokens=3)
        for k in range(2)
    )
    before = part.clone()
    push_attention(part, Steering(torch.arange(3), columns))
    assert part.isfinite().all()
    assert (part[:, :2] > before[:, :2]).all()
    assert torch.equal(part[:, 2:], before[:, 2:])


def test_a_reader_whose_numbers_are_no_fp32_is_refused() -> None:
    with pytest.raises(VectorError, match="too large for fp32"):
        SteeringVector(
            id="v", label="v", description="", layers=[0], directions=torch.ones(1, 4), range=(-1.0, 1.0),
            suggested=0.3, model="any", hidden_size=4,
            reader=FeatureReader(torch.ones(4), bias=1e300, gate_bias=0.0),
        )  # fmt: skip


def test_a_number_beyond_half_precision_is_its_largest_on_the_wire() -> None:
    """Steering may add 100,000 times the stream's length."""
    wire = Registry().to_half(torch.tensor([[[1e5, -1e5, np.nan, 2.5]]]), ["steering_share"]).numpy()
    assert np.array_equal(wire[0, 0], np.array([65504, -65504, np.nan, 2.5], dtype="<f2"), equal_nan=True)
