"""LoRA's products on a CPU, one for each adapter in a batch.

vLLM's own (0.32.0, lora/ops/torch_ops) gather the weights of an adapter anew for each of its tokens, which is
gigabytes for a long prompt. They also look up the base model's tokens, whose index is -1, in the last place
there is, so that those are written with the adapter that has it. Here every stretch of tokens with the same
adapter is multiplied once, and the base model's are left alone.

vLLM's CPU runner uses these two in every step (`punica_cpu.py`); the arguments are as it gives them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from vllm.lora.punica_wrapper import punica_cpu


def _stretches(lengths: torch.Tensor, adapters: torch.Tensor) -> Iterator[tuple[slice, int]]:
    """Which rows have which adapter; those without one are left out."""
    start = 0
    for length, adapter in zip(lengths.tolist(), adapters.tolist(), strict=True):
        if adapter >= 0:
            yield slice(start, start + length), adapter
        start += length


def shrink(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, _starts: torch.Tensor,
    lengths: torch.Tensor, adapters: torch.Tensor, _batches: int, _longest: int, _tokens: int, scaling: float,
) -> None:  # fmt: skip
    """output = scaling * inputs @ A.T; [tokens, rank] of [tokens, hidden] and [places, 1, rank, hidden]."""
    for rows, adapter in _stretches(lengths, adapters):
        a = weights[adapter, 0]
        output[rows, : a.shape[0]] = scaling * (inputs[rows].to(output.dtype) @ a.to(output.dtype).T)


def expand_slice(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, _starts: torch.Tensor,
    lengths: torch.Tensor, adapters: torch.Tensor, _batches: int, _longest: int, _tokens: int, offset: int,
    size: int, add_inputs: bool = False,
) -> None:  # fmt: skip
    """output[:, offset:offset + size] += inputs @ B.T; [tokens, size] of [tokens, rank] and [places, 1, size,
    rank]. Modules of layers always add."""
    if not add_inputs:
        raise NotImplementedError("Only what is added to a module's output is computed here.")
    for rows, adapter in _stretches(lengths, adapters):
        b = weights[adapter, 0]
        output[rows, offset : offset + size] += inputs[rows].to(output.dtype) @ b.to(output.dtype).T


def install() -> None:
    """Have vLLM's CPU runner use these, in this process."""
    punica_cpu.sgmv_shrink, punica_cpu.sgmv_expand_slice = shrink, expand_slice
