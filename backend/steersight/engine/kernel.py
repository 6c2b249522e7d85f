"""The fused kernel of the captured lens, in Triton; `captured.fused_reference` says what it computes."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped"
from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _kernel(
    hidden, residual, below, directions, strengths, unsteered, stream, numbers,
    hidden_row, residual_row, below_row, unsteered_row, stream_row,
    has_residual: tl.constexpr, vectors: tl.constexpr, size: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    # One program per row; the whole row lies in registers and is read and written once.
    row = tl.program_id(0)
    at = tl.arange(0, block)
    inside = at < size
    kept = tl.load(hidden + row * hidden_row + at, mask=inside, other=0.0)
    h = kept.to(tl.float32)
    r = tl.zeros([block], tl.float32)
    if has_residual:
        r = tl.load(residual + row * residual_row + at, mask=inside, other=0.0).to(tl.float32)
    before = h + r
    tl.store(unsteered + row * unsteered_row + at, before, mask=inside)
    push = tl.zeros([block], tl.float32)
    weight = 0.0
    for k in range(vectors):
        s = tl.load(strengths + row * vectors + k)
        if s != 0.0:
            weight += tl.abs(s)
            push += s * tl.load(directions + k * size + at, mask=inside, other=0.0)
    after = before
    # Not only skipped for speed: a row without strengths must keep its very bits.
    if weight > 0.0:
        length = tl.sqrt(tl.sum(push * push))
        factor = tl.minimum(1.0, 1.0 / tl.maximum(length, 1e-30)) * tl.sqrt(tl.sum(before * before))
        moved = (h + push * factor).to(kept.dtype)
        tl.store(hidden + row * hidden_row + at, moved, mask=inside)
        after = moved.to(tl.float32) + r
    tl.store(stream + row * stream_row + at, after, mask=inside)
    under = tl.load(below + row * below_row + at, mask=inside, other=0.0)
    wrote = before - under
    norm = tl.sqrt(tl.sum(after * after))
    scale = norm * tl.sqrt(tl.sum(under * under))
    tl.store(numbers + row * 3, norm)
    tl.store(numbers + row * 3 + 1, tl.sqrt(tl.sum(wrote * wrote)))
    tl.store(numbers + row * 3 + 2, tl.sum(after * under) / tl.maximum(scale, 1e-30))


def fused(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    below: torch.Tensor,
    directions: torch.Tensor,
    strengths: torch.Tensor,
    unsteered: torch.Tensor,
    stream: torch.Tensor,
    numbers: torch.Tensor,
) -> None:
    """Launch the kernel; arguments as in `captured.fused_reference`, each contiguous along its last axis."""
    rows, size = hidden.shape
    other = hidden if residual is None else residual
    _kernel[(rows,)](
        hidden, other, below, directions, strengths, unsteered, stream, numbers,
        hidden.stride(0), other.stride(0), below.stride(0), unsteered.stride(0), stream.stride(0),
        has_residual=residual is not None, vectors=strengths.shape[1], size=size,
        block=triton.next_power_of_2(size), num_warps=4 if size <= 2048 else 8,
    )  # fmt: skip
