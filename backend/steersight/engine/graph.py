"""The graph pass: what of the observer runs on the device in every step that a CUDA graph replays.

A replayed graph runs no Python, so nothing here may depend on what a step holds: all tensors are static,
every recorded size writes the same places, and what differs from step to step (who is steered, and how
strongly) is read from `table`, which is filled before the step. One fused Triton kernel per layer steers,
keeps the stream and reduces it to the three numbers of the residual family; everything else is computed from
the kept streams after the step, only when a run has asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..metrics import View
from ..vectors.store import READER_FIELDS
from .kernel_reference import FIELDS, NUMBERS, Slots, fused_reference
from .reduce import Reducer, StepNumbers
from .transfer import indices
from .use import MAX_AT_WORK

if TYPE_CHECKING:
    from ..vectors.action import Action
    from .bank import VectorBank
    from .layout import Layout
    from .plan import StepPlan

Fused = Callable[..., None]


class GraphPass:
    """Static buffers of one worker, and the operations that are recorded into its graphs."""

    def __init__(self, layout: Layout, rows: int, hidden_size: int, device: torch.device) -> None:
        layers = layout.count
        self._device = device

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=torch.float32, device=device)

        self.streams = zeros(layers + 1, rows, hidden_size)
        """[layers + 1, rows, hidden_size]: what entered the first layer, then the stream after each one."""
        self.unsteered = zeros(layers, rows, hidden_size)
        """[layers, rows, hidden_size]: the stream after each layer, before its steering."""
        self.parts = zeros(layers, rows, hidden_size) if layout.attention else None
        self.numbers = zeros(layers, rows, len(NUMBERS))
        self.slots = Slots(
            directions=zeros(layers, MAX_AT_WORK, hidden_size),
            lengths=zeros(layers, MAX_AT_WORK),
            own=zeros(layers, MAX_AT_WORK),
            readers=zeros(MAX_AT_WORK, hidden_size),
            numbers=zeros(MAX_AT_WORK, len(READER_FIELDS)),
        )
        self.table = zeros(rows, MAX_AT_WORK, len(FIELDS))
        if device.type == "cuda":
            from .kernel import fused
        else:
            fused = fused_reference
        self._fused: Fused = fused
        self._bank: VectorBank | None = None
        self._names: tuple[str, ...] = ()
        self._uploaded: list[list[Action]] = []

    def upload(self, rows: list[list[Action]]) -> list[int]:
        """What acts on each request of the next step. One copy, and none where nothing has changed.

        Returns: indices of the rows that nothing acts on after all, because together with the others they
            have more vectors than there are slots. The server refuses such runs before they begin; this is
            for the case that it has counted wrongly.
        """
        if rows == self._uploaded:
            return []
        excess = self._excess(rows)
        rows = [[] if row in excess else actions for row, actions in enumerate(rows)]
        self._make_room({action.vector for actions in rows for action in actions})
        count = max(len(rows), len(self._uploaded))
        # Pinned, and a new one each time: the step before may still be copying the last.
        host = torch.zeros(count, *self.table.shape[1:], pin_memory=self.table.device.type == "cuda")
        for row, actions in enumerate(rows):
            for action in actions:
                layers = action.layers or (-1, -1)
                host[row, self._names.index(action.vector)] = torch.tensor(
                    [action.strength, action.code, action.lo, action.hi, *layers]
                )
        self.table[:count].copy_(host, non_blocking=True)
        self._uploaded = rows
        return excess

    def _excess(self, rows: list[list[Action]]) -> list[int]:
        """The rows that bring more vectors than there are slots; those that have their slots come first."""
        wanted = [{action.vector for action in actions} for actions in rows]
        if len(set().union(*wanted)) <= MAX_AT_WORK:
            return []
        at_work: set[str] = set()
        left: list[int] = []
        # A sort that keeps the batch's order: every rank comes to the same.
        for row in sorted(range(len(rows)), key=lambda row: not wanted[row] <= set(self._names)):
            if len(at_work | wanted[row]) <= MAX_AT_WORK:
                at_work |= wanted[row]
            else:
                left.append(row)
        return sorted(left)

    def recording(self) -> bool:
        """Whether what runs now is being recorded into a CUDA graph."""
        return torch.cuda.is_current_stream_capturing()

    def take(self, plan: StepPlan, reducer: Reducer, bank: VectorBank) -> StepNumbers:
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
        streams = kept(self.streams)
        if plan.summed or set(plan.metrics) - set(NUMBERS):
            unsteered = kept(self.unsteered)
            view = View(
                first=0,
                streams=streams,
                runs=plan.rows,
                unsteered={
                    layer: unsteered[layer]
                    for layer in range(layers)
                    if any(bank.acts(action, layer) for _, action in plan.steered)
                },
                attention=None if self.parts is None else kept(self.parts),
                direction=bank.direction,
            )
            reducer.reduce(plan, view, numbers.values, NUMBERS)
        head_rows = numbers.head_rows
        if head_rows is not None:
            numbers.picked = [streams[layer + 1].index_select(0, head_rows) for layer in plan.lens_layers]
        return numbers

    def forget(self) -> None:
        """Clear what the last step has left, so that nothing of it can be taken for another's."""
        for buffer in (self.streams, self.unsteered, self.numbers):
            buffer.zero_()

    def take_bank(self, bank: VectorBank) -> None:
        """Steer with these vectors from the next step on."""
        self._bank, self._names, self._uploaded = bank, (), []
        self.table.zero_()

    def _make_room(self, wanted: set[str]) -> None:
        """Put the vectors into slots that are not there yet, all in the bank's order."""
        if wanted <= set(self._names):
            return
        if self._bank is None:
            raise KeyError(f"The engine has no vectors, and was asked for {', '.join(sorted(wanted))}.")
        self._names = self._bank.sorted(wanted)
        self._uploaded = self._uploaded and [[] for _ in self._uploaded]
        layers = len(self.slots.directions)
        for slot, name in enumerate(self._names):
            vector = self._bank.vectors[name]
            self.slots.directions[:, slot] = self._bank.direction(name, 0, layers)
            self.slots.lengths[:, slot] = vector.lengths[vector.rows]
            self.slots.own[:, slot] = torch.tensor(
                [float(layer in vector.layers) for layer in range(layers)]
            ).to(self.table.device)
            self.slots.numbers[slot] = vector.numbers
            self.slots.readers[slot] = 0.0 if vector.reader is None else vector.reader

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
            hidden, residual, self.streams[index, :count], self.slots, index, self.table[:count],
            self.unsteered[index, :count], self.streams[index + 1, :count], self.numbers[index, :count],
        )  # fmt: skip
