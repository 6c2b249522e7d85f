"""A token's push is the same, bit for bit, whatever acts on other tokens and however long their lists are."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersight.engine.plan import Steered
from steersight.engine.steering import push, steering_tables
from steersight.vectors.action import Action
from steersight.vectors.operators import sums
from steersight.vectors.store import OPERATORS, FeatureReader

from .banks import make_bank

SIZE, VECTORS = 96, 9


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


NAMES = [f"v{seed}" for seed in range(VECTORS)]
BANK = make_bank(
    {name: {0: drawn(seed, SIZE)} for seed, name in enumerate(NAMES)}, 1,
    {
        name: FeatureReader(drawn(seed + 50, SIZE), 0.1, 0.2, scale_to=3.0, gain=1.5, threshold=0.05)
        for seed, name in enumerate(NAMES)
    },
)  # fmt: skip
actions = st.builds(
    Action, vector=st.sampled_from(NAMES), strength=st.floats(-3, 3, width=32).filter(bool),
    operator=st.sampled_from(OPERATORS), lo=st.sampled_from([-math.inf, -0.1]), hi=st.just(0.1),
)  # fmt: skip
lists = st.lists(actions, max_size=6, unique_by=lambda action: action.vector)


def pushed(h: torch.Tensor, acting: list[list[Action]]) -> torch.Tensor:
    steered: list[Steered] = [
        (range(token, token + 1), action)
        for token, mine in enumerate(acting)
        for action in BANK.composed(mine)
    ]
    found = h.clone()
    steering = steering_tables(steered, BANK).residual.get(0)
    if steering is not None:
        push(found, None, steering)
    return found


@settings(deadline=None)
@given(
    st.integers(0, 99), st.lists(lists, min_size=1, max_size=9), st.data(),
    st.sampled_from([torch.float32, torch.bfloat16]),
)  # fmt: skip
def test_neighbours_move_nothing(
    seed: int, acting: list[list[Action]], data: st.DataObject, dtype: torch.dtype
) -> None:
    h = drawn(seed, len(acting), SIZE).to(dtype)
    token = data.draw(st.integers(0, len(acting) - 1))
    whole = pushed(h, acting)[token]
    assert torch.equal(whole, pushed(h[token : token + 1], [acting[token]])[0])
    if not acting[token]:
        assert torch.equal(whole, h[token])


def test_the_sum_is_a_product_of_matrices() -> None:
    h, direction = drawn(3, 7, SIZE), drawn(2, 1, SIZE)
    assert torch.allclose(sums.along(h, direction), h @ direction.T, atol=1e-4)
