"""The fused kernel of the graph pass, in Triton; `kernel_reference.fused_reference` says what it computes.

A row costs what is at work on it: its list is read to the row's own count, and a vector's direction only
where the vector acts at this layer.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, attr-defined"
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from ..vectors.operators import Operator
from ..vectors.operators.finite import MOST
from . import kernel_reference as reference

if TYPE_CHECKING:
    from .pool import VectorPool

_ADD_ABSOLUTE = tl.constexpr(int(Operator.ADD_ABSOLUTE))
_ABLATE = tl.constexpr(int(Operator.ABLATE))
_CLAMP = tl.constexpr(int(Operator.CLAMP))
_FEATURE_SET = tl.constexpr(int(Operator.FEATURE_SET))
_FEATURE_SCALE = tl.constexpr(int(Operator.FEATURE_SCALE))
_FIELDS = tl.constexpr(len(reference.FIELDS))
_STRENGTH = tl.constexpr(reference.STRENGTH)
_OPERATOR = tl.constexpr(reference.OPERATOR)
_LO = tl.constexpr(reference.LO)
_HI = tl.constexpr(reference.HI)
_FIRST = tl.constexpr(reference.FIRST)
_LAST = tl.constexpr(reference.LAST)


@triton.jit
def _acts(entry, own, slot, layer):
    # Whether what an entry says acts at this layer.
    first = tl.load(entry + _FIRST)
    acts = tl.load(own + slot) != 0
    if first >= 0.0:
        acts = (first <= layer) & (layer <= tl.load(entry + _LAST))
    return acts


@triton.jit
def _kernel(
    hidden, residual, below, directions, lengths, row_of, own, reader_of, readings, acting, counts, unsteered,
    stream, numbers, hidden_row, residual_row, below_row, unsteered_row, stream_row, layer,
    largest, most, has_residual: tl.constexpr, room: tl.constexpr, size: tl.constexpr, block: tl.constexpr,
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
    count = tl.load(counts + row)
    for k in range(count):
        entry = acting + (row * room + k) * _FIELDS
        slot = tl.load(entry).to(tl.int32)
        if _acts(entry, own, slot, layer):
            operator = tl.load(entry + _OPERATOR).to(tl.int32)
            if (operator == _ABLATE) | (operator == _CLAMP):
                cut += 1.0
            else:
                added += 1.0
                s = tl.load(entry + _STRENGTH)
                mine = tl.load(row_of + slot)
                length = tl.load(lengths + mine)
                amount = s * norm
                if operator == _ADD_ABSOLUTE:
                    amount = s * length
                if operator >= _FEATURE_SET:
                    reading = readings + slot * 5
                    scale_to = tl.load(reading)
                    # A row's offset may be beyond 32 bits.
                    reader = tl.load(reader_of + slot).to(tl.int64)
                    weight = tl.load(directions + reader * size + at, mask=inside, other=0.0)
                    raw = tl.sum(before * weight)
                    if scale_to > 0.0:
                        raw = raw * (scale_to / tl.maximum(norm, 1e-30))
                    raw = tl.where(raw == raw, tl.minimum(tl.maximum(raw, -3e38), 3e38), 0.0)
                    found = raw * tl.load(reading + 1) + tl.load(reading + 2)
                    found = tl.minimum(tl.maximum(found, 0.0), 3e38)
                    if raw + tl.load(reading + 3) <= tl.load(reading + 4):
                        found = 0.0
                    amount = (s - found) * length
                    if operator == _FEATURE_SCALE:
                        amount = s * found * length
                amount = tl.minimum(tl.maximum(amount, -furthest), furthest)
                direction = directions + mine.to(tl.int64) * size
                push += amount * tl.load(direction + at, mask=inside, other=0.0)
    after = before
    # Not only skipped for speed: a row on which nothing acts must keep its very bits.
    if added + cut > 0.0:
        long = tl.sqrt(tl.sum(push * push))
        push = push * tl.minimum(1.0, norm / tl.maximum(long, 1e-30))
        if cut > 0.0:
            for k in range(count):
                entry = acting + (row * room + k) * _FIELDS
                slot = tl.load(entry).to(tl.int32)
                operator = tl.load(entry + _OPERATOR).to(tl.int32)
                if ((operator == _ABLATE) | (operator == _CLAMP)) & _acts(entry, own, slot, layer):
                    s = tl.load(entry + _STRENGTH)
                    direction = directions + tl.load(row_of + slot).to(tl.int64) * size
                    v = tl.load(direction + at, mask=inside, other=0.0)
                    moved = before + push
                    along = tl.sum(moved * v)
                    amount = -s * along
                    if operator == _CLAMP:
                        whole = tl.sum(moved * moved)
                        share = along / tl.maximum(tl.sqrt(whole), 1e-30)
                        lo, hi = tl.load(entry + _LO), tl.load(entry + _HI)
                        bound = tl.minimum(tl.maximum(share, lo), hi)
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
    pool: VectorPool,
    layer: int,
    acting: torch.Tensor,
    counts: torch.Tensor,
    unsteered: torch.Tensor,
    stream: torch.Tensor,
    numbers: torch.Tensor,
) -> None:
    """Launch the kernel; arguments as `kernel_reference.fused_reference`, contiguous along the last axis."""
    rows, size = hidden.shape
    other = hidden if residual is None else residual
    _kernel[(rows,)](
        hidden, other, below, pool.directions, pool.lengths, pool.row_of[layer], pool.own[layer],
        pool.reader_of, pool.numbers, acting, counts, unsteered, stream, numbers,
        hidden.stride(0), other.stride(0), below.stride(0), unsteered.stride(0), stream.stride(0), layer,
        torch.finfo(hidden.dtype).max, MOST,
        has_residual=residual is not None, room=acting.shape[1], size=size,
        block=triton.next_power_of_2(size), num_warps=4 if size <= 2048 else 8,
    )  # fmt: skip
