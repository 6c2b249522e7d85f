"""The lens: sees every token of every run once per layer, makes rows of it, and steers.

It sits on NNsight's interleaver, which hands it each decoder layer's whole-batch tensors once per step.
One step goes: `begin(plan)` when the scheduler has said which runs are in the batch, `enter` with the
embeddings, `layer` once per decoder layer (steer in place, then reduce to numbers), `finish` with the rows
on their way to the server. Nothing here waits for the device or for the server.

Which revision a token uses depends only on its position (`RunState.revision_at`), never on when it is
computed: a run that vLLM preempts and recomputes later gets the strengths each position had the first time,
so neither its KV cache nor its rows change.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..metrics import REGISTRY, LayerView
from ..vectors.operators import norm_relative_add
from .channel import RowSender, StepRows
from .layout import Layout, stream_entering

if TYPE_CHECKING:
    import torch

MAX_WAITING_STEERS = 4096


@dataclass
class Revision:
    """One state of a run's sliders."""

    rev: int
    strengths: dict[str, float]


@dataclass
class RunState:
    """What the lens knows of one live run."""

    run: str
    first_row: int
    """Rows of positions below this are not wanted (prompt rows switched off)."""
    starts: list[int]
    """Position from which the revision of the same index is in force; ascending."""
    revisions: list[Revision]
    next_position: int = 0
    """The first position that no forward pass has computed yet."""

    def revision_at(self, position: int) -> Revision:
        """The revision that position is, was, and on recomputation will be computed with."""
        return self.revisions[bisect.bisect_right(self.starts, position) - 1]

    def steer(self, revision: Revision) -> None:
        """Let `revision` be in force from the next uncomputed position on."""
        if self.starts[-1] == self.next_position:
            # Replaced before any token was computed with it.
            self.revisions[-1] = revision
        else:
            self.starts.append(self.next_position)
            self.revisions.append(revision)


@dataclass(frozen=True)
class Steering:
    """The steered tokens of a step at one layer."""

    rows: torch.Tensor
    """[steered] int64: indices of the tokens to change; the others are not touched at all."""
    strengths: torch.Tensor
    """[steered, vectors of this layer] fp32."""


@dataclass
class VectorBank:
    """Directions by layer, on the model's device."""

    names: dict[int, list[str]] = field(default_factory=dict)
    directions: dict[int, torch.Tensor] = field(default_factory=dict)
    """Layer -> [vectors, hidden_size] fp32, unit length."""

    @classmethod
    def build(cls, vectors: dict[str, dict[int, torch.Tensor]], device: torch.device) -> VectorBank:
        """From vector id -> layer -> [hidden_size] unit direction."""
        import torch

        by_layer: dict[int, list[tuple[str, torch.Tensor]]] = {}
        for name, layers in vectors.items():
            for layer, direction in layers.items():
                by_layer.setdefault(layer, []).append((name, direction))
        return cls(
            names={layer: [name for name, _ in items] for layer, items in by_layer.items()},
            directions={
                layer: torch.stack([direction.float() for _, direction in items]).to(device)
                for layer, items in by_layer.items()
            },
        )


@dataclass
class Plan:
    """What one step has to do: who is where in the batch, and with which strengths."""

    tokens: int
    blocks: list[tuple[str, int, list[int]]]
    """(run, first position, revision per row) of the rows to send."""
    keep: list[int]
    """Batch index of each row to send, in the order of `blocks`."""
    steering: dict[int, Steering]


class Lens:
    """Observer and steering wheel of one worker."""

    def __init__(
        self, layout: Layout, bank: VectorBank, device: torch.device, sender: RowSender | None
    ) -> None:
        self.layout = layout
        self.bank = bank
        self.device = device
        self.sender = sender  # None on every tensor-parallel rank but the first: all see the same stream
        self.metrics = list(REGISTRY.values())
        self.runs: dict[str, RunState] = {}  # by vLLM's request id
        self._by_run: dict[str, RunState] = {}
        self._waiting: dict[str, Revision] = {}  # steers for runs whose first step has not come yet
        self._plan: Plan | None = None
        self._below: torch.Tensor | None = None
        self._rows: torch.Tensor | None = None

    # ------------------------------------------------------------ runs

    def add(self, request_id: str, options: dict[str, Any]) -> None:
        """Take up a run when the scheduler first names its request."""
        if request_id in self.runs:
            return  # preempted and back: it keeps its history
        run = options["run"]
        state = RunState(
            run=run,
            first_row=options["first_row"],
            starts=[0],
            revisions=[Revision(0, options["strengths"])],
        )
        if run in self._waiting:
            state.steer(self._waiting.pop(run))
        self.runs[request_id] = self._by_run[run] = state

    def remove(self, request_id: str) -> None:
        """Forget a run whose request is over, finished or aborted."""
        state = self.runs.pop(request_id, None)
        if state is not None:
            self._by_run.pop(state.run, None)
            self._waiting.pop(state.run, None)

    def steer(self, run: str, rev: int, strengths: dict[str, float]) -> int | None:
        """New strengths for a run; called between two steps.

        Returns: the first position that will be computed with them, or None when the run is not in the
        batch yet (they are then its first) or any more.
        """
        state = self._by_run.get(run)
        if state is None:
            if len(self._waiting) >= MAX_WAITING_STEERS:
                self._waiting.pop(next(iter(self._waiting)))
            self._waiting[run] = Revision(rev, strengths)
            return None
        state.steer(Revision(rev, strengths))
        return state.next_position

    # ------------------------------------------------------------ one step

    def begin(self, spans: list[tuple[str, int, int]]) -> None:
        """Plan the step from (request id, first position, tokens) in batch order."""
        self._plan = self._make_plan(spans) if any(request in self.runs for request, _, _ in spans) else None
        self._below = None
        self._rows = None

    def _make_plan(self, spans: list[tuple[str, int, int]]) -> Plan:
        import torch

        blocks: list[tuple[str, int, list[int]]] = []
        keep: list[int] = []
        active: list[tuple[int, dict[str, float]]] = []  # (batch index, strengths) of tokens to steer
        offset = 0
        for request_id, start, count in spans:
            state = self.runs.get(request_id)
            if state is not None:
                revisions = [state.revision_at(start + i) for i in range(count)]
                # Not sent again when a preempted run is recomputed, nor where nobody asked.
                first = max(start, state.next_position, state.first_row)
                if first < start + count:
                    blocks.append((state.run, first, [r.rev for r in revisions[first - start :]]))
                    keep.extend(range(offset + first - start, offset + count))
                state.next_position = max(state.next_position, start + count)
                # Position 0 is the attention sink: its norm is many times the others' and every later token
                # attends to it, so a norm-relative push there would move the whole run.
                active.extend(
                    (offset + i, revision.strengths)
                    for i, revision in enumerate(revisions)
                    if start + i > 0 and revision.strengths
                )
            offset += count

        steering: dict[int, Steering] = {}
        for layer, names in self.bank.names.items():
            table = [
                (index, [strengths.get(name, 0.0) for name in names])
                for index, strengths in active
                if any(strengths.get(name) for name in names)
            ]
            if table:
                steering[layer] = Steering(
                    rows=torch.tensor([index for index, _ in table], dtype=torch.int64).to(self.device),
                    strengths=torch.tensor([row for _, row in table], dtype=torch.float32).to(self.device),
                )
        return Plan(offset, blocks, keep, steering)

    def enter(self, value: Any) -> None:
        """The embeddings, on their way into the first layer."""
        if self._plan is None:
            return
        import torch

        self._below = stream_entering(value)[: self._plan.tokens]
        self._rows = torch.empty(
            (self._plan.tokens, len(self.metrics), self.layout.count),
            dtype=torch.float32,
            device=self._below.device,
        )

    def layer(self, index: int, value: Any) -> None:
        """One decoder layer's `(hidden, residual)`: steer in place, then reduce to this layer's numbers."""
        plan, below, rows = self._plan, self._below, self._rows
        if plan is None or below is None or rows is None:
            return
        hidden, residual = value[0][: plan.tokens], value[1][: plan.tokens]
        after = hidden.float() + residual.float()
        written = after - below
        steering = plan.steering.get(index)
        if steering is not None:
            stream = after[steering.rows]
            delta = norm_relative_add(stream, self.bank.directions[index], steering.strengths)
            hidden.index_add_(0, steering.rows, delta.to(hidden.dtype))
            after = hidden.float() + residual.float()
        view = LayerView(below=below, written=written, after=after)
        for column, metric in enumerate(self.metrics):
            rows[:, column, index] = metric.compute(view)
        self._below = after

    def finish(self) -> None:
        """The forward pass is over: one copy to the host, one message."""
        plan, rows = self._plan, self._rows
        self._plan = self._below = self._rows = None
        if plan is None or rows is None or not plan.keep or self.sender is None:
            return
        if len(plan.keep) != plan.tokens:
            rows = rows[plan.keep]
        self.sender.put(
            StepRows(
                runs=plan.blocks,
                metrics=[metric.id for metric in self.metrics],
                layers=self.layout.count,
                values=_to_host(rows),
            )
        )


def _to_host(rows: torch.Tensor) -> Any:
    """Start the copy now; the sender thread, not the forward pass, waits for it."""
    import torch

    if rows.device.type == "cpu":
        return rows.numpy
    host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    host.copy_(rows, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def wait() -> Any:
        copied.synchronize()
        return host.numpy()

    return wait
