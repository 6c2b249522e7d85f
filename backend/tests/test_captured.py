"""What is recorded into CUDA graphs, in its plain form, against the eager lens's own arithmetic.

The Triton kernel was held against the same plain form on an H100; docs/performance.md says when and how.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from steersight.engine.captured import MAX_VECTORS, NUMBERS, Captured, fused_reference
from steersight.engine.layout import Layout
from steersight.metrics import Registry, View
from steersight.vectors.operators import norm_relative_add, unit_rows

SIZE = 24


def rows(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


@given(
    count=st.integers(1, 6), paired=st.booleans(), half=st.booleans(),
    steers=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, MAX_VECTORS - 1), st.floats(-6, 6, width=32)), max_size=6
    ),
)  # fmt: skip
def test_the_plain_kernel_is_the_eager_lens(
    count: int, paired: bool, half: bool, steers: list[tuple[int, int, float]]
) -> None:
    dtype = torch.bfloat16 if half else torch.float32
    hidden = rows(1, count).to(dtype)
    residual = rows(2, count).to(dtype) if paired else None
    below, directions = rows(3, count), unit_rows(rows(4, MAX_VECTORS))
    strengths = torch.zeros(count, MAX_VECTORS)
    for row, vector, strength in steers:
        strengths[row % count, vector] = strength
    before = hidden.float() + (0 if residual is None else residual.float())
    delta = norm_relative_add(before, directions, strengths)
    steered = (strengths != 0).any(dim=-1)
    original = hidden.clone()

    unsteered, stream = torch.empty(count, SIZE), torch.empty(count, SIZE)
    numbers = torch.empty(count, len(NUMBERS))
    fused_reference(hidden, residual, below, directions, strengths, unsteered, stream, numbers)

    assert torch.equal(hidden[~steered], original[~steered]), "a row without strengths was touched"
    assert torch.allclose(hidden.float(), original.float() + delta, atol=0.1 if half else 1e-5)
    assert torch.equal(unsteered, before)
    assert torch.equal(stream, hidden.float() + (0 if residual is None else residual.float()))
    view = View(0, torch.stack([below, stream]), [("r", 0, count)], unsteered={0: unsteered})
    for index, name in enumerate(NUMBERS):
        compute = Registry()[name].compute
        assert compute is not None
        assert torch.allclose(numbers[:, index], compute(view)[0], atol=1e-4), name


def test_strengths_of_a_step_replace_those_of_the_last() -> None:
    layout = Layout([torch.nn.Identity()], "single", attention=None, final=[], unembed=lambda stream: stream)
    captured = Captured(layout, rows=4, hidden_size=SIZE, device=torch.device("cpu"))
    captured.upload([[0.5], [], [0.1, 0.2]])
    assert captured.strengths[:3, :2].tolist() == [
        [0.5, 0],
        [0, 0],
        [torch.tensor(0.1).item(), torch.tensor(0.2).item()],
    ]
    captured.upload([[]])
    assert not captured.strengths.any()
