"""The lens inside CUDA graphs: what of it runs on the device in every replayed step.

A replayed graph runs no Python, so nothing here may depend on what a step holds: all tensors are static,
every captured size writes the same places, and what differs from step to step (who is steered, and how
strongly) is read from `strengths`, which is filled before the step. One fused Triton kernel per layer steers,
keeps the stream and reduces it to the three numbers of the residual family; everything else is computed from
the kept streams after the step, only when a run has asked for it.

`fused_reference` is the same in plain torch operations: the kernel is held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .layout import Layout

MAX_VECTORS = 32
CAP = 1.0
_TINY = 1e-30
Fused = Callable[..., None]
NUMBERS = ("residual_norm", "update_norm", "cosine_below")


class Captured:
    """Static buffers of one worker, and the operations that are recorded into its graphs."""

    def __init__(self, layout: Layout, rows: int, hidden_size: int, device: torch.device) -> None:
        layers = layout.count

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=torch.float32, device=device)

        self.streams = zeros(layers + 1, rows, hidden_size)
        """[layers + 1, rows, hidden_size]: what entered the first layer, then the stream after each one."""
        self.unsteered = zeros(layers, rows, hidden_size)
        """[layers, rows, hidden_size]: the stream after each layer, before its steering."""
        self.parts = zeros(layers, rows, hidden_size) if layout.attention else None
        self.numbers = zeros(layers, rows, len(NUMBERS))
        self.directions = zeros(layers, MAX_VECTORS, hidden_size)
        self.strengths = zeros(rows, MAX_VECTORS)
        if device.type == "cuda":
            from .kernel import fused
        else:
            fused = fused_reference
        self._fused: Fused = fused
        self._uploaded: tuple[tuple[float, ...], ...] = ()

    def upload(self, table: list[list[float]]) -> None:
        """Strengths of the next step: [requests][vectors]. One copy, and none where nothing has changed."""
        wanted = tuple(map(tuple, table))
        if wanted == self._uploaded:
            return
        rows = max(len(wanted), len(self._uploaded))
        # Pinned, and a new one each time: the step before may still be copying the last.
        host = torch.zeros(rows, MAX_VECTORS, pin_memory=self.strengths.device.type == "cuda")
        for row, values in enumerate(wanted):
            host[row, : len(values)] = torch.tensor(values)
        self.strengths[:rows].copy_(host, non_blocking=True)
        self._uploaded = wanted

    def take_directions(
        self, order: list[str], names: dict[int, list[str]], directions: dict[int, torch.Tensor]
    ) -> None:
        """Steer with these vectors: layer -> names and [vectors, hidden_size] directions at that layer."""
        if len(order) > MAX_VECTORS:
            raise ValueError(f"{len(order)} vectors are more than the {MAX_VECTORS} that CUDA graphs hold.")
        self.directions.zero_()
        for layer, mine in names.items():
            for index, name in enumerate(mine):
                self.directions[layer, order.index(name)] = directions[layer][index]

    def enter(self, hidden: torch.Tensor) -> None:
        """Record: keep what enters the first layer, [rows, hidden_size]."""
        self.streams[0, : len(hidden)].copy_(hidden)

    def attention(self, index: int, added: torch.Tensor) -> None:
        """Record: keep what attention adds in a layer, [rows, hidden_size]."""
        if self.parts is not None:
            self.parts[index, : len(added)].copy_(added)

    def layer(self, index: int, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Record: steer, keep and reduce a layer's output, [rows, hidden_size] each."""
        count = len(hidden)
        self._fused(
            hidden, residual, self.streams[index, :count], self.directions[index], self.strengths[:count],
            self.unsteered[index, :count], self.streams[index + 1, :count], self.numbers[index, :count],
        )  # fmt: skip


def fused_reference(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    below: torch.Tensor,
    directions: torch.Tensor,
    strengths: torch.Tensor,
    unsteered: torch.Tensor,
    stream: torch.Tensor,
    numbers: torch.Tensor,
) -> None:
    """Steer `hidden` in place, keep the stream before and after, and reduce; the kernel in torch operations.

    Args:
        hidden: [rows, hidden_size], changed where a row has a strength that is not 0, else not touched.
        residual: the same shape, or None; the stream is the sum of the two.
        below: [rows, hidden_size] fp32, what entered the layer.
        directions: [vectors, hidden_size] fp32, unit length or zero.
        strengths: [rows, vectors] fp32; the push is norm-relative and capped as `norm_relative_add` does it.
        unsteered: [rows, hidden_size] fp32, written: the stream before steering.
        stream: [rows, hidden_size] fp32, written: the stream after it.
        numbers: [rows, 3] fp32, written: `NUMBERS`.
    """
    before = hidden.float() + (residual.float() if residual is not None else 0.0)
    unsteered.copy_(before)
    push = strengths @ directions
    length = push.norm(dim=-1, keepdim=True)
    delta = push * ((CAP / length.clamp_min(_TINY)).clamp(max=1.0) * before.norm(dim=-1, keepdim=True))
    steered = (strengths != 0).any(dim=-1, keepdim=True)
    hidden.copy_(torch.where(steered, hidden.float() + delta, hidden.float()))
    after = hidden.float() + (residual.float() if residual is not None else 0.0)
    stream.copy_(after)
    norm = after.norm(dim=-1)
    numbers[:, 0] = norm
    numbers[:, 1] = (before - below).norm(dim=-1)
    numbers[:, 2] = (after * below).sum(-1) / (norm * below.norm(dim=-1)).clamp_min(_TINY)
