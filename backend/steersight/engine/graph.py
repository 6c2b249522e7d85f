"""The graph pass: what of the observer runs on the device in every step that a CUDA graph replays.

A replayed graph runs no Python, so nothing here may depend on what a step holds: all tensors are static,
every recorded size writes the same places, and what differs from step to step (who is steered, and how
strongly) is read from `acting`, which is filled before the step. One fused Triton kernel per layer steers,
keeps the stream and reduces it to the three numbers of the residual family; everything else is computed from
the kept streams after the step, only when a run has asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..metrics import View
from .acting import ActingTable
from .experts import Routed
from .kernel_reference import NUMBERS, fused_reference
from .reduce import Reducer, StepNumbers
from .transfer import indices

if TYPE_CHECKING:
    from ..vectors.action import Action
    from .bank import VectorBank
    from .experts import ExpertRouters
    from .layout import Layout
    from .plan import StepPlan

Fused = Callable[..., None]


class GraphPass:
    """Static buffers of one worker, and the operations that are recorded into its graphs."""

    def __init__(
        self,
        layout: Layout,
        bank: VectorBank,
        rows: int,
        hidden_size: int,
        device: torch.device,
        routers: ExpertRouters | None = None,
    ) -> None:
        """Take all memory, for steps of at most so many rows; that for what routers are handed when one is
        first at work."""
        layers = layout.count
        self._routers = routers
        self._routed: dict[int, Routed] = {}
        """Per layer with experts what its router was handed in the step, for so many rows."""
        self.most_tokens = rows
        """Of a step that a graph may run."""
        self._device = device
        self._bank = bank

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=torch.float32, device=device)

        self.streams = zeros(layers + 1, rows, hidden_size)
        """[layers + 1, rows, hidden_size]: what entered the first layer, then the stream after each one."""
        self.unsteered = zeros(layers, rows, hidden_size)
        """[layers, rows, hidden_size]: the stream after each layer, before its steering."""
        self.parts = zeros(layers, rows, hidden_size) if layout.attention else None
        self.numbers = zeros(layers, rows, len(NUMBERS))
        self.acting = ActingTable(bank, rows)
        if device.type == "cuda":
            from .kernel import fused
        else:
            fused = fused_reference
        self._fused: Fused = fused

    # ------------------------------------------------------------ before a step

    def upload(self, rows: Sequence[Sequence[Action]]) -> None:
        """What acts on each token of the next step, in the order in which it composes."""
        self.acting.fill(rows)

    def steer_nobody(self) -> None:
        """Let the next step pass without steering, whatever was uploaded before or is half there."""
        self.acting.clear()

    def forget(self) -> None:
        """Clear what the last step has left, so that nothing of it can be taken for another's."""
        handed = [buffer for routed in self._routed.values() for buffer in routed if buffer is not None]
        for buffer in (self.streams, self.unsteered, self.numbers, *handed):
            buffer.zero_()

    # ------------------------------------------------------------ what is recorded

    def recording(self) -> bool:
        """Whether what runs now is being recorded into a CUDA graph."""
        return torch.cuda.is_current_stream_capturing()

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
            hidden, residual, self.streams[index, :count], self._bank.pool, index,
            self.acting.entries[:count], self.acting.counts[:count], self.unsteered[index, :count],
            self.streams[index + 1, :count], self.numbers[index, :count],
        )  # fmt: skip

    def make_room(self, index: int, routed: Routed) -> None:
        """Outside of a recording: take the memory for what the router of a layer is handed."""
        if index not in self._routed:

            def room(of_all: torch.Tensor) -> torch.Tensor:
                return of_all.new_zeros(self.most_tokens, *of_all.shape[1:])

            self._routed[index] = Routed(
                room(routed.logits), None if routed.ids is None else room(routed.ids)
            )

    def routed(self, index: int, routed: Routed) -> None:
        """Record: keep what the router of a layer is handed, [rows, ...]."""
        kept = self._routed.get(index)
        if kept is None:
            return  # nothing has run before the recording: its numbers stay NaN
        kept.logits[: len(routed.logits)].copy_(routed.logits)
        if kept.ids is not None and routed.ids is not None:
            kept.ids[: len(routed.ids)].copy_(routed.ids)

    # ------------------------------------------------------------ after a step

    def take(self, plan: StepPlan, reducer: Reducer) -> StepNumbers:
        """The numbers of a step that a graph has run: no hook was called, and all is in the buffers."""
        layers = len(self.unsteered)
        numbers = StepNumbers.blank(plan, layers, self._device)
        keep = None if len(plan.keep) == plan.tokens else indices(plan.keep, self._device)

        def kept(buffer: torch.Tensor) -> torch.Tensor:
            return buffer[:, : plan.tokens] if keep is None else buffer.index_select(1, keep)

        inside = kept(self.numbers)
        for column, name in enumerate(plan.metrics):
            if name in NUMBERS:
                numbers.values[:, column] = inside[:, :, NUMBERS.index(name)].T
        if self._routers is not None and self._routed and reducer.of_router(plan):
            read = [routed.at(keep, plan.tokens) for routed in self._routed.values()]
            reading = self._routers.read(list(self._routed), read)
            reducer.read_router(plan, list(self._routed), reading, numbers.values)
        streams = kept(self.streams)
        elsewhere = {name for name in plan.metrics if reducer.registry[name].compute is None}
        if plan.summed or set(plan.metrics) - elsewhere - set(NUMBERS):
            unsteered = kept(self.unsteered)
            steered = {layer for _, action in plan.steered for layer in self._bank.layers_of(action)}
            view = View(
                first=0,
                streams=streams,
                runs=plan.rows,
                unsteered={layer: unsteered[layer] for layer in sorted(steered)},
                attention=None if self.parts is None else kept(self.parts),
                direction=self._bank.direction,
            )
            reducer.reduce(plan, view, numbers.values, NUMBERS)
        head_rows = numbers.head_rows
        if head_rows is not None:
            numbers.picked = [streams[layer + 1].index_select(0, head_rows) for layer in plan.lens_layers]
        return numbers
