"""The eager pass: what the observer does while the model's layers run one by one.

Small tensor operations are what observing costs on a small batch, so a layer only writes its stream into a
static buffer, one operation, and the metrics reduce all layers together when the pass is over. A prompt too
long for the buffer is reduced in groups of layers. A run that wants nothing costs nothing but its steering.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..metrics import View
from . import steering
from .faults import Containment
from .functions import FunctionPass
from .reduce import Reducer, StepNumbers
from .steering import Steering, SteeringTables, steering_tables
from .transfer import indices

if TYPE_CHECKING:
    import torch

    from .bank import VectorBank
    from .experts import ExpertRouters, Routed
    from .layout import Layout
    from .plan import Call, Steered, StepPlan

BUFFER_BYTES = 64 << 20
"""The least that the stream buffer holds; more where a step's tokens need it."""


@dataclass
class _Kept:
    """The streams of a step under way, in the static buffer."""

    keep: torch.Tensor | None
    """Batch indices of the observed tokens; None when they are the whole batch."""
    streams: torch.Tensor
    """[slots, observed, hidden_size] fp32, a part of the static buffer."""
    slots: tuple[torch.Tensor, ...]
    """The same, taken apart once: taking a slice costs as much as the addition that fills it."""
    attention: tuple[torch.Tensor, ...] | None
    parts: torch.Tensor | None
    """[slots - 1, observed, hidden_size] fp32: where attention's parts are kept."""
    numbers: StepNumbers
    unsteered: dict[int, torch.Tensor] = field(default_factory=dict)
    first: int = 0
    """Layer that the stream in slot 0 enters."""
    layers: int = 0
    """Layers whose streams are in the buffer."""


class EagerPass:
    """Steers, keeps and reduces while the layers run.

    What goes wrong in steering is handled by one containment, in observing by another: a run that is only
    observed does not lose its reply to a neighbour's vector.
    """

    def __init__(
        self,
        layout: Layout,
        bank: VectorBank,
        reducer: Reducer,
        device: torch.device,
        *,
        hidden_size: int,
        max_tokens: int,
        max_runs: int,
        while_steering: Containment,
        while_observing: Containment,
        functions: FunctionPass,
        routers: ExpertRouters | None = None,
    ) -> None:
        import torch

        self.layout = layout
        self.functions = functions
        self.routers = routers
        self.bank = bank
        self._reducer = reducer
        self._device = device
        self._while_steering = while_steering
        self._while_observing = while_observing
        self._tables = SteeringTables()
        self._tables_of: tuple[int, list[Steered]] = (-1, [])
        """The bank's `changes` and the plan's `steered` that they were made of."""
        self._kept: _Kept | None = None
        # Room for all layers of a step that only decodes, and for one layer with its parts of the longest
        # prompt.
        floats = max(
            BUFFER_BYTES // 4, 3 * max_tokens * hidden_size, (layout.count + 1) * max_runs * hidden_size
        )
        self._buffer = torch.empty(floats, dtype=torch.float32, device=device)
        self._hidden_size = hidden_size

    def begin(self) -> None:
        """Forget the step before."""
        self._kept = None
        self.functions.begin()

    def stop_observing(self) -> None:
        """Keep nothing of the rest of the step; steering goes on."""
        self._kept = None

    @property
    def numbers(self) -> StepNumbers | None:
        """What the pass has come to; None where nothing was observed."""
        return None if self._kept is None else self._kept.numbers

    # ------------------------------------------------------------ as the layers run

    def enter(self, plan: StepPlan, hidden: torch.Tensor) -> None:
        """The embeddings [tokens, hidden_size], on their way into the first layer."""
        if plan.keep:
            with self._while_observing:
                self._kept = self._open(plan)
                self._keep(hidden, None, self._kept.slots[0])

    def attention(self, plan: StepPlan, layer: int, added: torch.Tensor) -> None:
        """What attention adds in a layer, [tokens, hidden_size]: steer in place, then keep it."""
        if plan.steered:
            with self._while_steering:
                acting = self._steering(plan).attention.get(layer)
                if acting is not None:
                    steering.push_attention(added, acting)
        kept = self._kept
        if kept is not None and kept.attention is not None:
            with self._while_observing:
                self._keep(added, None, kept.attention[kept.layers])

    def layer(self, plan: StepPlan, layer: int, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """One decoder layer's output, the stream being the sum of the two: steer in place, then keep it."""
        acting = None
        if plan.steered:
            with self._while_steering:
                acting = self._steering(plan).residual.get(layer)
        calls = self.functions.at(plan, layer)
        if self._kept is None:
            self._steer(layer, hidden, residual, acting, calls)
            return
        with self._while_observing:
            kept = self._kept
            slot = kept.slots[kept.layers + 1]
            self._keep(hidden, residual, slot)
            if acting is not None or calls:
                kept.unsteered[layer] = slot.clone()
        self._steer(layer, hidden, residual, acting, calls)
        if self._kept is not None:
            with self._while_observing:
                if acting is not None or calls:
                    self._keep(hidden, residual, self._kept.slots[self._kept.layers + 1])
                self._layer_kept(plan, self._kept, layer)

    def routed(self, plan: StepPlan, layer: int, routed: Routed) -> None:
        """What the router of a layer is handed for all tokens of the step: read what was asked of it."""
        kept, routers = self._kept, self.routers
        if kept is None or routers is None or not self._reducer.of_router(plan):
            return
        with self._while_observing:
            reading = routers.read([layer], [routed.at(kept.keep, len(plan.keep))])
            self._reducer.read_router(plan, [layer], reading, kept.numbers.values)

    # ------------------------------------------------------------ steering

    def _steering(self, plan: StepPlan) -> SteeringTables:
        """Made when the first layer asks, if other tokens or vectors are steered than in the step before."""
        made_of = (self.bank.changes, plan.steered)
        if made_of != self._tables_of:
            self._tables = steering_tables(plan.steered, self.bank)
            self._tables_of = made_of
        return self._tables

    def _steer(
        self,
        layer: int,
        hidden: torch.Tensor,
        residual: torch.Tensor | None,
        acting: Steering | None,
        calls: list[Call],
    ) -> None:
        """All vectors of a layer, then the functions one by one."""
        if acting is not None:
            with self._while_steering:
                self._push(hidden, residual, acting)
        if calls:
            self.functions.steer(calls, layer, hidden, residual)

    def _push(self, hidden: torch.Tensor, residual: torch.Tensor | None, acting: Steering) -> None:
        steering.push(hidden, residual, acting)

    # ------------------------------------------------------------ keeping

    def _open(self, plan: StepPlan) -> _Kept:
        observed = len(plan.keep)
        room = len(self._buffer) // (observed * self._hidden_size)
        slots = self._buffer[: room * observed * self._hidden_size].view(room, observed, self._hidden_size)
        wants_parts = self.layout.attention is not None and any(
            self._reducer.registry[name].family == "parts" for name in plan.metrics
        )
        group = min(self.layout.count, (room - 1) // 2 if wants_parts else room - 1)
        streams = slots[: group + 1]
        parts = slots[group + 1 : 2 * group + 1] if wants_parts else None
        return _Kept(
            keep=None if observed == plan.tokens else indices(plan.keep, self._device),
            streams=streams,
            slots=streams.unbind(),
            attention=None if parts is None else parts.unbind(),
            parts=parts,
            numbers=StepNumbers.blank(plan, self.layout.count, self._device),
        )

    def _keep(self, hidden: torch.Tensor, residual: torch.Tensor | None, slot: torch.Tensor) -> None:
        """Write the observed tokens' stream into `slot`, in fp32 from the start."""
        import torch

        kept = self._kept
        if kept is not None and kept.keep is not None:
            hidden = hidden.index_select(0, kept.keep)
            residual = None if residual is None else residual.index_select(0, kept.keep)
        elif hidden.shape[0] != slot.shape[0]:  # vLLM may pad the batch
            hidden = hidden[: len(slot)]
            residual = None if residual is None else residual[: len(slot)]
        if residual is None:
            slot.copy_(hidden)
        elif hidden.dtype == torch.float32:
            torch.add(hidden, residual, out=slot)
        else:  # the sum of two half-precision tensors would be rounded to half precision first
            slot.copy_(hidden).add_(residual)

    def _layer_kept(self, plan: StepPlan, kept: _Kept, layer: int) -> None:
        """A layer's stream is in the buffer; reduce what is there when it is full, or this was the last."""
        kept.layers += 1
        if kept.layers == len(kept.slots) - 1 or layer == self.layout.count - 1:
            self._reduce(plan, kept)

    def _reduce(self, plan: StepPlan, kept: _Kept) -> None:
        """The metrics of the layers in the buffer; then it is free but for the last stream."""
        first, count = kept.first, kept.layers
        view = View(
            first=first,
            streams=kept.streams[: count + 1],
            runs=plan.rows,
            unsteered=kept.unsteered,
            attention=None if kept.parts is None else kept.parts[:count],
            direction=self.bank.direction,
        )
        numbers = kept.numbers
        self._reducer.reduce(plan, view, numbers.values[:, :, first : first + count])
        if numbers.head_rows is not None:
            numbers.picked.extend(
                kept.slots[layer - first + 1].index_select(0, numbers.head_rows)
                for layer in plan.lens_layers
                if first <= layer < first + count
            )
        kept.first, kept.layers, kept.unsteered = first + count, 0, {}
        if kept.first < self.layout.count:
            kept.slots[0].copy_(kept.slots[count])
