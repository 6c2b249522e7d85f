"""The fused kernel of the graph pass, in Triton; `kernel_reference.fused_reference` says what it computes."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped"
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from ..vectors.operators.finite import MOST

if TYPE_CHECKING:
    from .kernel_reference import Slots


@triton.jit
def _kernel(
    hidden, residual, below, directions, lengths, own, readers, readings, table, unsteered, stream, numbers,
    hidden_row, residual_row, below_row, unsteered_row, stream_row, layer,
    largest, most, has_residual: tl.constexpr, vectors: tl.constexpr, size: tl.constexpr, block: tl.constexpr,
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
    norm = tl.sqrt(tl.sum(before * before))
    push = tl.zeros([block], tl.float32)
    furthest = most * norm
    added = 0.0
    cut = 0.0
    for k in range(vectors):
        entry = table + (row * vectors + k) * 6
        s = tl.load(entry)
        if s != 0.0:
            first = tl.load(entry + 4)
            acts = tl.load(own + k) != 0.0
            if first >= 0.0:
                acts = (first <= layer) & (layer <= tl.load(entry + 5))
            if acts:
                operator = tl.load(entry + 1)
                length = tl.load(lengths + k)
                amount = s * norm
                if operator == 1.0:
                    amount = s * length
                if operator >= 4.0:
                    reading = readings + k * 5
                    scale_to = tl.load(reading)
                    weight = tl.load(readers + k * size + at, mask=inside, other=0.0)
                    raw = tl.sum(before * weight)
                    if scale_to > 0.0:
                        raw = raw * (scale_to / tl.maximum(norm, 1e-30))
                    raw = tl.where(raw == raw, tl.minimum(tl.maximum(raw, -3e38), 3e38), 0.0)
                    found = raw * tl.load(reading + 1) + tl.load(reading + 2)
                    found = tl.minimum(tl.maximum(found, 0.0), 3e38)
                    if raw + tl.load(reading + 3) <= tl.load(reading + 4):
                        found = 0.0
                    amount = (s - found) * length
                    if operator == 5.0:
                        amount = s * found * length
                if (operator == 2.0) | (operator == 3.0):
                    cut += 1.0
                else:
                    added += 1.0
                    amount = tl.minimum(tl.maximum(amount, -furthest), furthest)
                    push += amount * tl.load(directions + k * size + at, mask=inside, other=0.0)
    after = before
    # Not only skipped for speed: a row without strengths must keep its very bits.
    if added + cut > 0.0:
        long = tl.sqrt(tl.sum(push * push))
        push = push * tl.minimum(1.0, norm / tl.maximum(long, 1e-30))
        if cut > 0.0:
            for k in range(vectors):
                entry = table + (row * vectors + k) * 6
                s = tl.load(entry)
                operator = tl.load(entry + 1)
                if (s != 0.0) & ((operator == 2.0) | (operator == 3.0)):
                    first = tl.load(entry + 4)
                    acts = tl.load(own + k) != 0.0
                    if first >= 0.0:
                        acts = (first <= layer) & (layer <= tl.load(entry + 5))
                    if acts:
                        v = tl.load(directions + k * size + at, mask=inside, other=0.0)
                        moved = before + push
                        along = tl.sum(moved * v)
                        amount = -s * along
                        if operator == 3.0:
                            whole = tl.sum(moved * moved)
                            share = along / tl.maximum(tl.sqrt(whole), 1e-30)
                            bound = tl.minimum(tl.maximum(share, tl.load(entry + 2)), tl.load(entry + 3))
                            amount = 0.0
                            if bound != share:
                                safe = tl.minimum(tl.maximum(bound, -0.999), 0.999)
                                rest = tl.sqrt(tl.maximum(whole - along * along, 0.0))
                                amount = s * (safe * rest / tl.sqrt(1.0 - safe * safe) - along)
                        push += tl.minimum(tl.maximum(amount, -furthest), furthest) * v
        # `operators.finite.within`: the sum stays finite in the tensor's own type.
        up = tl.maximum(0.5 * largest - tl.maximum(before, h), 0.0)
        down = tl.minimum(-0.5 * largest - tl.minimum(before, h), 0.0)
        push = tl.where(push == push, push, 0.0)
        push = tl.maximum(tl.minimum(push, tl.minimum(up, largest)), tl.maximum(down, -largest))
        changed = (h + push).to(kept.dtype)
        tl.store(hidden + row * hidden_row + at, changed, mask=inside)
        after = changed.to(tl.float32) + r
    tl.store(stream + row * stream_row + at, after, mask=inside)
    under = tl.load(below + row * below_row + at, mask=inside, other=0.0)
    wrote = before - under
    size_after = tl.sqrt(tl.sum(after * after))
    scale = size_after * tl.sqrt(tl.sum(under * under))
    tl.store(numbers + row * 3, size_after)
    tl.store(numbers + row * 3 + 1, tl.sqrt(tl.sum(wrote * wrote)))
    tl.store(numbers + row * 3 + 2, tl.sum(after * under) / tl.maximum(scale, 1e-30))


def fused(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    below: torch.Tensor,
    slots: Slots,
    layer: int,
    table: torch.Tensor,
    unsteered: torch.Tensor,
    stream: torch.Tensor,
    numbers: torch.Tensor,
) -> None:
    """Launch the kernel; arguments as `kernel_reference.fused_reference`, contiguous along the last axis."""
    rows, size = hidden.shape
    other = hidden if residual is None else residual
    _kernel[(rows,)](
        hidden, other, below, slots.directions[layer], slots.lengths[layer], slots.own[layer], slots.readers,
        slots.numbers, table, unsteered, stream, numbers,
        hidden.stride(0), other.stride(0), below.stride(0), unsteered.stride(0), stream.stride(0), layer,
        torch.finfo(hidden.dtype).max, MOST,
        has_residual=residual is not None, vectors=table.shape[1], size=size,
        block=triton.next_power_of_2(size), num_warps=4 if size <= 2048 else 8,
    )  # fmt: skip
