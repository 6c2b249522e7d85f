"""A token's push is the same, bit for bit, whatever other tokens and vectors there are."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from steersight.vectors.operators import LayerVectors, compose, sums

SIZE = 96


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 8), st.data())
def test_neighbours_move_nothing(seed: int, tokens: int, vectors: int, data: st.DataObject) -> None:
    h = drawn(seed, tokens, SIZE)
    at = LayerVectors(
        torch.nn.functional.normalize(drawn(seed + 1, vectors, SIZE), dim=-1), drawn(seed + 2, vectors).abs(),
        drawn(seed + 3, vectors, SIZE), torch.tensor([[3.0, 1.5, 0.1, 0.2, 0.05]]).repeat(vectors, 1),
    )  # fmt: skip
    table = torch.zeros(tokens, vectors, 4)
    table[..., 0] = drawn(seed + 4, tokens, vectors)
    table[..., 1] = torch.randint(6, (vectors,), generator=torch.Generator().manual_seed(seed)).float()
    table[..., 2], table[..., 3] = -0.1, 0.1
    token = data.draw(st.integers(0, tokens - 1))
    mine = sorted(data.draw(st.sets(st.integers(0, vectors - 1), min_size=1)))
    others = [index for index in range(vectors) if index not in mine]
    table[token, others, 0] = 0.0
    whole = compose(h, at, table)[token]
    assert at.readers is not None
    assert at.numbers is not None
    few = LayerVectors(at.directions[mine], at.lengths[mine], at.readers[mine], at.numbers[mine])
    alone = compose(h[token : token + 1], few, table[token : token + 1, mine])[0]
    assert torch.equal(whole, alone)


def test_the_sums_are_products_of_matrices() -> None:
    amounts, directions, h = drawn(1, 7, 5), drawn(2, 5, SIZE), drawn(3, 7, SIZE)
    assert torch.allclose(sums.weighted(amounts, directions), amounts @ directions, atol=1e-5)
    assert torch.allclose(sums.along(h, directions[0]), h @ directions[0], atol=1e-4)
