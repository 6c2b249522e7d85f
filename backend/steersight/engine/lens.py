"""The lens: sees every token of every run once per layer, makes rows of it, and steers.

It hangs on hooks of the decoder layers, which hand it the whole batch's tensors once per step. One step goes:
`begin(plan)` when the scheduler has said which runs are in the batch, `enter` with the embeddings, `layer`
once per decoder layer (steer in place, keep the stream), `forwarded`, `sampled`, and the rows are on their
way to the server. Nothing here waits for the device or for the server.

Small tensor operations are what a lens costs on a small batch, so a layer only writes its stream into a
static buffer, one operation, and the metrics reduce all layers together when the pass is over. A prompt too
long for the buffer is reduced in groups of layers. A run that wants nothing costs nothing but its steering.

Which revision a token uses depends only on its position (`RunState.revision_at`), never on when it is
computed: a run that vLLM preempts and recomputes later gets the strengths each position had the first time,
so neither its KV cache nor its rows change.

Nothing that goes wrong in here reaches the engine: see `faults.py`.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..metrics import LENS_METRICS, Registry, View
from ..metrics import logit_lens as lens_math
from ..vectors.action import Action
from ..vectors.operators import FIELDS, LayerVectors, add_absolute, compose, finite, sums
from .bank import Arrivals, BankedVector, VectorBank
from .capture import Captures
from .captured import NUMBERS, Captured
from .channel import RowSender
from .faults import Containment, Failures
from .layout import Layout, part
from .outgoing import DeviceStep, NamedTokens
from .request import RunOptions, Wants
from .use import MAX_AT_WORK

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MAX_WAITING_STEERS = 4096
BUFFER_BYTES = 64 << 20
"""The least that the stream buffer holds; more where a step's tokens need it."""


@dataclass
class Revision:
    """One state of a run's sliders."""

    rev: int
    actions: tuple[Action, ...]
    """Those of its sliders that are not at 0."""


@dataclass
class RunState:
    """What the lens knows of one live run."""

    run: str
    first_row: int
    """Rows of positions below this are not wanted (prompt rows switched off)."""
    wants: Wants
    starts: list[int]
    """Position from which the revision of the same index is in force; ascending."""
    revisions: list[Revision]
    next_position: int = 0
    """The first position that no forward pass has computed yet."""
    failed: bool = False
    """It is about to be aborted, and gets nothing any more."""

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
    table: torch.Tensor
    """[steered, vectors, 4] fp32, `operators.FIELDS`"""
    at: LayerVectors
    sequential: tuple[int, ...]
    """Vectors that are ablated or clamped by some token."""


Steered = tuple[range, Action]
"""Tokens of the batch, and what acts on all of them."""


class Block(NamedTuple):
    """One run's part of a step."""

    run: str
    start: int
    """Position of the first row that is sent; the sampled token's where none is."""
    revisions: list[int]
    """Per row."""
    request: int
    """Index of the request in the batch, and so in logits and sampled tokens."""


@dataclass
class Head:
    """A run of which more is wanted than its token: the final distribution's entropy, or the logit lens."""

    entry: int
    """Index of its block."""
    request: int
    """Index of the request in the batch, and so in the logits."""
    row: int
    """Index of the row among the kept ones."""
    wants: Wants


@dataclass
class Plan:
    """What one step has to do: who is where in the batch, and with which strengths."""

    tokens: int
    blocks: list[Block] = field(default_factory=list)
    """Those whose rows have numbers."""
    bare: list[Block] = field(default_factory=list)
    """Those of which only positions, revisions and tokens are wanted."""
    keep: list[int] = field(default_factory=list)
    """Batch index of each row to send, in the order of `blocks`."""
    steered: list[Steered] = field(default_factory=list)
    pushed: list[str] = field(default_factory=list)
    """Runs that `steered` acts on."""
    steering: dict[int, Steering] | None = None
    """The same by layer, once a layer has asked: a replayed graph never does."""
    attention: dict[int, Steering] = field(default_factory=dict)
    """What is added to attention's part, by layer."""
    metrics: list[str] = field(default_factory=list)
    """What any run of the step wants, in the order of the registry."""
    captured: set[str] = field(default_factory=set)
    """Runs whose streams are summed."""
    heads: list[Head] = field(default_factory=list)
    lens_layers: list[int] = field(default_factory=list)
    """Layers whose streams go through the unembedding; the last is among them."""

    @property
    def lens_heads(self) -> list[Head]:
        """The runs that want the logit lens."""
        return [head for head in self.heads if head.wants.lens_stride]


@dataclass
class _Step:
    """The tensors of a step under way."""

    keep: torch.Tensor | None
    """Batch indices of the observed tokens; None when they are the whole batch."""
    streams: torch.Tensor
    """[slots, observed, hidden_size] fp32, a part of the static buffer."""
    slots: tuple[torch.Tensor, ...]
    """The same, taken apart once: taking a slice costs as much as the addition that fills it."""
    attention: tuple[torch.Tensor, ...] | None
    parts: torch.Tensor | None
    """[slots - 1, observed, hidden_size] fp32: where attention's parts are kept."""
    values: torch.Tensor
    """[observed, metrics, layers] fp32."""
    head_rows: torch.Tensor | None
    picked: list[torch.Tensor] = field(default_factory=list)
    """Per layer of the logit lens [runs with it, hidden_size]."""
    unsteered: dict[int, torch.Tensor] = field(default_factory=dict)
    first: int = 0
    """Layer that the stream in slot 0 enters."""
    held: int = 0
    """Layers whose streams are in the buffer."""


class Lens:
    """Observer and steering wheel of one worker."""

    def __init__(
        self,
        layout: Layout,
        bank: VectorBank,
        device: torch.device,
        sender: RowSender | None,
        *,
        registry: Registry,
        hidden_size: int,
        max_tokens: int,
        max_runs: int,
        dtype: torch.dtype,
        captured: Captured | None = None,
        publishes: bool = True,
    ) -> None:
        import torch

        self.layout = layout
        self.bank = bank
        self.device = device
        self.sender = sender
        self.publishes = publishes and sender is not None
        """Whether rows come from here: on the first tensor-parallel rank, for all see the same stream."""
        self.registry = registry
        self.arrivals = Arrivals(layout.count, device)
        self.dtype = dtype
        self.captured = captured
        """What runs inside CUDA graphs; None where the engine runs eagerly."""
        self.runs: dict[str, RunState] = {}  # by vLLM's request id
        self.captures = Captures(layout.count, hidden_size, device)
        self.failed: dict[str, str] = {}
        """Metrics that have raised, and what; they are not computed again."""
        self._by_run: dict[str, RunState] = {}
        self._waiting: dict[str, Revision] = {}  # steers for runs whose first step has not come yet
        self._plan: Plan | None = None
        self._step: _Step | None = None
        self._logits: torch.Tensor | None = None
        self._here: list[str] = []  # runs in the step under way
        self._failures = Failures(sender)
        self._steering = Containment(self._fail_steered)
        self._observation = Containment(self._fail_observed)
        self._everything = Containment(self._fail_step)
        # Room for all layers of a step that only decodes, and for one layer with its parts of the longest
        # prompt.
        floats = max(
            BUFFER_BYTES // 4, 3 * max_tokens * hidden_size, (layout.count + 1) * max_runs * hidden_size
        )
        self._buffer = torch.empty(floats, dtype=torch.float32, device=device)
        self._hidden_size = hidden_size

    # ------------------------------------------------------------ vectors

    def take_bank(self, bank: VectorBank) -> None:
        """Steer with these vectors from the next step on."""
        self.bank = bank
        self.registry = self.registry.with_vectors(bank.labels())
        if self.captured is not None:
            self.captured.take_bank(bank)

    def add_vector(self, name: str, vector: BankedVector) -> None:
        """One vector more, as the last of those that compose."""
        self.take_bank(self.bank.having(name, vector))

    def remove_vector(self, name: str) -> None:
        """Offer a vector no more. Where a run may still come back to it, it is kept until no run can.

        vLLM recomputes a run that it has preempted, each position with the revision it had: so every
        revision of a live run counts, not the newest alone. The kept one gets another name, also in those
        revisions, because its id is free from now on.
        """
        if name not in self.bank.vectors:
            return
        if name not in self._reachable():
            self.take_bank(self.bank.without({name}))
            return
        bank, retired = self.bank.retiring(name)
        for revision in self._revisions():
            revision.actions = tuple(
                replace(action, vector=retired) if action.vector == name else action
                for action in revision.actions
            )
        self.take_bank(bank)

    def _revisions(self) -> list[Revision]:
        """All that a live run is, was or on recomputation will be computed with."""
        live = [revision for state in self.runs.values() for revision in state.revisions]
        return [*live, *self._waiting.values()]

    def _reachable(self) -> set[str]:
        return {action.vector for revision in self._revisions() for action in revision.actions}

    def _let_go(self) -> None:
        """Forget the kept vectors that no live run can reach any more."""
        free = self.bank.retired
        if free and (free := free - self._reachable()):
            self.take_bank(self.bank.without(free))

    # ------------------------------------------------------------ runs

    def add(self, request_id: str, options: dict[str, Any]) -> None:
        """Take up a run when the scheduler first names its request."""
        if request_id in self.runs:
            return  # preempted and back: it keeps its history
        try:
            state = self._taken_up(options)
        except Exception as error:
            # Unknown here, it is not steered until it is aborted.
            self._failures.add([options["run"]], "The engine could not take this reply up", error)
            return
        self.runs[request_id] = self._by_run[state.run] = state

    def _taken_up(self, options: dict[str, Any]) -> RunState:
        told = RunOptions.from_wire(options)
        run = told.run
        unknown = [metric for metric in told.wants.metrics if metric not in self.registry]
        if unknown:
            raise KeyError(f"The engine has no metric {', '.join(unknown)}.")
        state = RunState(
            run=run,
            first_row=told.first_row,
            wants=told.wants,
            starts=[0],
            revisions=[Revision(told.rev, told.actions)],
        )
        if run in self._waiting:
            state.steer(self._waiting.pop(run))
        return state

    def remove(self, request_id: str) -> None:
        """Forget a run whose request is over, finished or aborted."""
        state = self.runs.pop(request_id, None)
        if state is not None:
            self._by_run.pop(state.run, None)
            self._waiting.pop(state.run, None)
            self._let_go()

    def steer(self, run: str, rev: int, actions: tuple[Action, ...]) -> int | None:
        """New actions for a run; called between two steps.

        Returns: the first position that will be computed with them, or None when the run is not in the batch
        yet (they are then its first) or any more.
        """
        state = self._by_run.get(run)
        if state is None:
            if len(self._waiting) >= MAX_WAITING_STEERS:
                self._waiting.pop(next(iter(self._waiting)))
            self._waiting[run] = Revision(rev, actions)
            return None
        state.steer(Revision(rev, actions))
        return state.next_position

    # ------------------------------------------------------------ one step

    def begin(self, spans: list[tuple[str, int, int]]) -> None:
        """Plan the step from (request id, first position, tokens) in batch order."""
        self._failures.tell()
        self._plan = self._step = None
        self._here = [state.run for request, _, _ in spans if (state := self.runs.get(request)) is not None]
        if self._here:
            with self._everything:
                self._plan = self._make_plan(spans)
        if self.captured is not None and sum(count for _, _, count in spans) <= self.captured.most_tokens:
            with self._everything:
                self._upload_acting(self.captured, spans)

    def _upload_acting(self, captured: Captured, spans: list[tuple[str, int, int]]) -> None:
        try:
            places = [(request, start + at) for request, start, count in spans for at in range(count)]
            excess = captured.upload([self._acting(request, position) for request, position in places])
            if excess:
                self._fail(
                    {self.runs[places[row][0]].run for row in excess},
                    "The engine could not steer this reply",
                    ValueError(f"More than {MAX_AT_WORK} vectors are at work at once."),
                )
        except Exception as error:
            # What a graph replays reads the table, whatever is in it: it must not be the last step's, nor one
            # that is half filled.
            captured.take_bank(self.bank)
            self._fail_steered(error)

    # ------------------------------------------------------------ when it goes wrong

    def _fail(self, runs: Iterable[str], what: str, error: Exception) -> None:
        """Let these runs end; see `faults.py`."""
        fresh = [state for run in runs if (state := self._by_run.get(run)) is not None and not state.failed]
        for state in fresh:
            state.failed = True
        self._failures.add([state.run for state in fresh], what, error)

    def _fail_steered(self, error: Exception) -> None:
        """The step's steering failed: it is not steered from here on, and whoever was to be has failed."""
        plan = self._plan
        if plan is not None:
            self._fail(plan.pushed, "The engine could not steer this reply", error)
            plan.steered, plan.pushed, plan.steering, plan.attention = [], [], {}, {}

    def _fail_observed(self, error: Exception) -> None:
        """The step's numbers failed: nobody is observed in it any more; steering goes on."""
        plan, self._step = self._plan, None
        if plan is not None:
            observed = [block.run for block in plan.blocks]
            self._fail(observed, "The engine could not compute this reply's numbers", error)
            plan.blocks, plan.keep, plan.metrics, plan.heads, plan.lens_layers = [], [], [], [], []
            plan.captured = set()

    def _fail_step(self, error: Exception) -> None:
        """It cannot be told whose fault it is: all runs of the step have failed."""
        self._plan = self._step = None
        self._fail(self._here, "The engine's lens failed while it computed this reply", error)

    # ------------------------------------------------------------ the plan

    def _acting(self, request_id: str, position: int) -> list[Action]:
        """What acts on one token of a step that a graph may run."""
        state = self.runs.get(request_id)
        if state is None or state.failed:
            return []
        return [action for action in state.revision_at(position).actions if action.acts_at(position)]

    def _make_plan(self, spans: list[tuple[str, int, int]]) -> Plan:
        plan = Plan(tokens=sum(count for _, _, count in spans))
        metrics: set[str] = set()
        offset = 0
        for request, (request_id, start, count) in enumerate(spans):
            state = self.runs.get(request_id)
            if state is not None and not state.failed:
                try:
                    metrics.update(self._plan_run(plan, state, request, start, count, offset))
                except Exception as error:
                    self._fail([state.run], "The engine could not steer this reply", error)
            offset += count
        plan.metrics = self.registry.ordered(metrics - self.failed.keys())
        plan.lens_layers = sorted(
            {
                layer
                for head in plan.lens_heads
                for layer in lens_math.lens_layers(self.layout.count, head.wants.lens_stride)
            }
        )
        return plan

    def _plan_run(
        self, plan: Plan, state: RunState, request: int, start: int, count: int, offset: int
    ) -> tuple[str, ...]:
        """Add what one run needs; returns the metrics it wants. Where it raises, it has added nothing."""
        revisions = [state.revision_at(start + i) for i in range(count)]
        pieces = _pieces(offset, start, revisions)
        self.bank.check({action.vector for _, action in pieces})
        # Not sent again when a preempted run is recomputed, nor where nobody asked.
        first = max(start, state.next_position, state.first_row)
        state.next_position = max(state.next_position, start + count)
        if pieces:
            plan.steered.extend(pieces)
            plan.pushed.append(state.run)
        first = min(first, start + count)
        block = Block(state.run, first, [r.rev for r in revisions[first - start :]], request)
        if state.wants.nothing or not block.revisions:
            plan.bare.append(block)
            return ()
        plan.blocks.append(block)
        plan.keep.extend(range(offset + first - start, offset + count))
        if state.wants.sums:
            plan.captured.add(state.run)
        if state.wants.entropy or state.wants.lens_stride:
            plan.heads.append(Head(len(plan.blocks) - 1, request, len(plan.keep) - 1, state.wants))
        return state.wants.metrics

    def _upload(self, numbers: Any, dtype: torch.dtype) -> torch.Tensor:
        """A small table on the device. From pinned memory, so that the step does not wait for the device."""
        import torch

        host = torch.as_tensor(numbers, dtype=dtype)
        if self.device.type == "cuda":
            host = host.pin_memory()
        return host.to(self.device, non_blocking=True)

    def _indices(self, numbers: list[int]) -> torch.Tensor:
        import torch

        return self._upload(numbers, torch.int64)

    def _make_tables(self, plan: Plan) -> None:
        """Put what is pushed at each layer on the device, when the first layer asks."""
        if plan.steering is None:
            plan.attention = self._tables(plan.steered, attention=True)
            plan.steering = self._tables(plan.steered)

    def _tables(self, steered: list[Steered], attention: bool = False) -> dict[int, Steering]:
        """By layer: `steered`, or what of it goes to attention's part."""
        mine = [piece for piece in steered if self.bank.vectors[piece[1].vector].attention == attention]
        tables: dict[int, Steering] = {}
        made: dict[tuple[int, ...], Steering] = {}
        for layer in range(self.layout.count) if mine else ():
            acting = tuple(i for i, (_, action) in enumerate(mine) if self.bank.acts(action, layer))
            if not acting:
                continue
            names = self.bank.sorted({mine[i][1].vector for i in acting})
            at = self.bank.at(layer, names)
            if acting not in made:
                made[acting] = self._table([mine[i] for i in acting], names, at)
            # The same tokens and vectors as at another layer: only the directions are this layer's.
            tables[layer] = replace(made[acting], at=at)
        return tables

    def _table(self, pieces: list[Steered], names: tuple[str, ...], at: LayerVectors) -> Steering:
        import numpy as np
        import torch

        rows = sorted({index for where, _ in pieces for index in where})
        place = {index: n for n, index in enumerate(rows)}
        table = np.zeros((len(rows), len(names), len(FIELDS)), dtype=np.float32)
        sequential = set()
        for where, action in pieces:
            column = names.index(action.vector)
            first = place[where.start]
            table[first : first + len(where), column] = (action.strength, action.code, action.lo, action.hi)
            if action.operator in ("ablate", "clamp"):
                sequential.add(column)
        return Steering(
            rows=self._indices(rows),
            table=self._upload(table, torch.float32),
            at=at,
            sequential=tuple(sorted(sequential)),
        )

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The embeddings, on their way into the first layer."""
        if self._recording():
            self.captured.enter(self.layout.entering(args, kwargs))  # type: ignore[union-attr]
            return
        plan = self._plan
        if plan is not None and plan.keep:
            with self._observation:
                self._step = self._open(plan)
                self._keep(self.layout.entering(args, kwargs), None, self._step.slots[0])

    def _open(self, plan: Plan) -> _Step:
        """The tensors of a step that runs eagerly."""
        observed = len(plan.keep)
        room = len(self._buffer) // (observed * self._hidden_size)
        slots = self._buffer[: room * observed * self._hidden_size].view(room, observed, self._hidden_size)
        parts = self.layout.attention is not None and any(
            self.registry[name].family == "parts" for name in plan.metrics
        )
        group = min(self.layout.count, (room - 1) // 2 if parts else room - 1)
        streams, kept = slots[: group + 1], slots[group + 1 : 2 * group + 1] if parts else None
        return _Step(
            keep=self._kept(plan),
            streams=streams,
            slots=streams.unbind(),
            attention=None if kept is None else kept.unbind(),
            parts=kept,
            values=self._blank(plan),
            head_rows=self._head_rows(plan),
        )

    def _kept(self, plan: Plan) -> torch.Tensor | None:
        return None if len(plan.keep) == plan.tokens else self._indices(plan.keep)

    def _blank(self, plan: Plan) -> torch.Tensor:
        import torch

        shape = (len(plan.keep), len(plan.metrics), self.layout.count)
        return torch.full(shape, torch.nan, device=self.device)

    def _head_rows(self, plan: Plan) -> torch.Tensor | None:
        heads = plan.lens_heads
        return self._indices([head.row for head in heads]) if heads else None

    def _recording(self) -> bool:
        """Whether what runs now is being recorded into a CUDA graph."""
        if self.captured is None:
            return False
        import torch

        return torch.cuda.is_current_stream_capturing()

    def attention(self, index: int, output: Any) -> None:
        """What attention adds in the layer that is running."""
        if self._recording():
            self.captured.attention(index, part(output))  # type: ignore[union-attr]
            return
        plan = self._plan
        if plan is not None and plan.steered:
            with self._steering:
                self._make_tables(plan)
                steering = plan.attention.get(index)
                if steering is not None:
                    self._push_attention(part(output), steering)
        step = self._step
        if step is not None and step.attention is not None:
            with self._observation:
                self._keep(part(output), None, step.attention[step.held])

    def layer(self, index: int, output: Any) -> None:
        """One decoder layer's output: steer in place, then keep the stream."""
        if self._recording():
            self.captured.layer(index, *self.layout.leaving(output))  # type: ignore[union-attr]
            return
        plan = self._plan
        if plan is not None:
            with self._everything:
                self._pass(plan, index, *self.layout.leaving(output))

    def _pass(self, plan: Plan, index: int, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        steering = None
        if plan.steered:
            with self._steering:
                self._make_tables(plan)
                steering = plan.steering.get(index)  # type: ignore[union-attr]
        if self._step is None:
            if steering is not None:
                with self._steering:
                    self._push(hidden, residual, steering)
            return
        with self._observation:
            step = self._step
            slot = step.slots[step.held + 1]
            self._keep(hidden, residual, slot)
            if steering is not None:
                step.unsteered[index] = slot.clone()
        if steering is not None:
            with self._steering:
                self._push(hidden, residual, steering)
        if self._step is not None:
            with self._observation:
                if steering is not None:
                    self._keep(hidden, residual, self._step.slots[self._step.held + 1])
                self._kept_layer(plan, self._step, index)

    def _kept_layer(self, plan: Plan, step: _Step, index: int) -> None:
        """A layer's stream is in the buffer; reduce what is there when it is full, or this was the last."""
        step.held += 1
        if step.held == len(step.slots) - 1 or index == self.layout.count - 1:
            self._reduce(plan, step)

    def _keep(self, hidden: torch.Tensor, residual: torch.Tensor | None, slot: torch.Tensor) -> None:
        """Write the observed tokens' stream into `slot`, in fp32 from the start."""
        import torch

        step = self._step
        if step is not None and step.keep is not None:
            hidden = hidden.index_select(0, step.keep)
            residual = None if residual is None else residual.index_select(0, step.keep)
        elif hidden.shape[0] != slot.shape[0]:  # vLLM may pad the batch
            hidden = hidden[: len(slot)]
            residual = None if residual is None else residual[: len(slot)]
        if residual is None:
            slot.copy_(hidden)
        elif hidden.dtype == torch.float32:
            torch.add(hidden, residual, out=slot)
        else:  # the sum of two half-precision tensors would be rounded to half precision first
            slot.copy_(hidden).add_(residual)

    def _push(self, hidden: torch.Tensor, residual: torch.Tensor | None, steering: Steering) -> None:
        mine = hidden[steering.rows].float()
        stream = mine if residual is None else mine + residual[steering.rows]
        delta = compose(stream, steering.at, steering.table, steering.sequential)
        delta = finite.within(delta, stream, mine, hidden.dtype)
        # Rounded once, after the sum, as in a captured graph: the two must not differ in half precision.
        hidden.index_copy_(0, steering.rows, (mine + delta).to(hidden.dtype))

    def _push_attention(self, added: torch.Tensor, steering: Steering) -> None:
        pushes = add_absolute.amount(steering.table[..., 0], steering.at.lengths)
        mine = added[steering.rows].float()
        most = pushes.clamp(-finite.FURTHEST, finite.FURTHEST)
        delta = finite.within(sums.weighted(most, steering.at.directions), mine, mine, added.dtype)
        added.index_copy_(0, steering.rows, (mine + delta).to(added.dtype))

    def _reduce(self, plan: Plan, step: _Step) -> None:
        """The metrics of the layers in the buffer; then it is free but for the last stream."""
        first, held = step.first, step.held
        view = View(
            first=first,
            streams=step.streams[: held + 1],
            runs=[(block.run, block.start, len(block.revisions)) for block in plan.blocks],
            unsteered=step.unsteered,
            attention=None if step.parts is None else step.parts[:held],
            direction=self.bank.direction,
        )
        self._compute(plan, view, step.values[:, :, first : first + held])
        if plan.captured:
            self.captures.take(view, plan.captured)
        if step.head_rows is not None:
            step.picked.extend(
                step.slots[layer - first + 1].index_select(0, step.head_rows)
                for layer in plan.lens_layers
                if first <= layer < first + held
            )
        step.first, step.held, step.unsteered = first + held, 0, {}
        if step.first < self.layout.count:
            step.slots[0].copy_(step.slots[held])

    def _compute(self, plan: Plan, view: View, values: torch.Tensor, done: tuple[str, ...] = ()) -> None:
        """All metrics of the step but those `done`, into `values` [tokens, metrics, layers of the view]."""
        for column, name in enumerate(plan.metrics):
            compute = self.registry[name].compute
            if compute is None or name in done or name in self.failed:
                continue
            try:
                values[:, column] = compute(view).T
            except Exception as error:
                if self.registry[name].family != "own":
                    self._fail(self._asked_for(name, plan), f"The engine could not compute {name}", error)
                    continue
                logger.exception("The metric %s is switched off", name)
                self.failed[name] = f"{type(error).__name__}: {error}"

    def _asked_for(self, metric: str, plan: Plan) -> list[str]:
        return [b.run for b in plan.blocks if metric in self._by_run[b.run].wants.metrics]

    def _replayed(self, plan: Plan, captured: Captured) -> _Step:
        """A step that a graph has run: no hook was called, and all is in the static buffers."""
        keep = self._kept(plan)

        def kept(buffer: torch.Tensor) -> torch.Tensor:
            return buffer[:, : plan.tokens] if keep is None else buffer.index_select(1, keep)

        values = self._blank(plan)
        numbers = kept(captured.numbers)
        for column, name in enumerate(plan.metrics):
            if name in NUMBERS:
                values[:, column] = numbers[:, :, NUMBERS.index(name)].T
        streams = kept(captured.streams)
        if plan.captured or set(plan.metrics) - set(NUMBERS):
            unsteered = kept(captured.unsteered)
            view = View(
                first=0,
                streams=streams,
                runs=[(block.run, block.start, len(block.revisions)) for block in plan.blocks],
                unsteered={
                    layer: unsteered[layer]
                    for layer in range(self.layout.count)
                    if any(self.bank.acts(action, layer) for _, action in plan.steered)
                },
                attention=None if captured.parts is None else kept(captured.parts),
                direction=self.bank.direction,
            )
            self._compute(plan, view, values, NUMBERS)
            if plan.captured:
                self.captures.take(view, plan.captured)
        head_rows = self._head_rows(plan)
        return _Step(
            keep=keep, streams=streams, slots=(), attention=None, parts=None, values=values,
            head_rows=head_rows,
            picked=[] if head_rows is None else [
                streams[layer + 1].index_select(0, head_rows) for layer in plan.lens_layers
            ],
        )  # fmt: skip

    def rehearse(self, spans: list[tuple[str, int, int]], forward: Callable[[], object]) -> torch.Tensor:
        """Plan a step, run it, and give its numbers instead of sending them.

        Args:
            spans: as `begin` takes them; all of these runs want the same metrics.
            forward: runs the model.

        Returns:
            [rows, metrics, layers] fp32, not yet transformed.

        Raises:
            RuntimeError: the step could not be planned or observed; the log says why.
        """
        if self.captured is not None:
            self.captured.forget()
        self.begin(spans)
        forward()
        self.forwarded()
        step, self._plan, self._step = self._step, None, None
        if step is None:
            raise RuntimeError("A step that was tried before the first run could not be observed.")
        return step.values.clone()

    def forwarded(self) -> None:
        """The forward pass is over. What a graph has left in the static buffers becomes the step's."""
        plan = self._plan
        if plan is not None and self.captured is not None and self._step is None and plan.keep:
            with self._observation:
                self._step = self._replayed(plan, self.captured)

    def final(self, logits: torch.Tensor) -> None:
        """The model's final logits [requests, vocab_size], before the sampler changes them in place."""
        import torch

        self._logits = None
        if self._plan is not None and self.publishes:
            # The sampler makes a copy by itself where it has to widen them.
            self._logits = logits.clone() if logits.dtype == torch.float32 else logits

    def sampled(self, tokens: torch.Tensor) -> None:
        """The tokens [requests, 1] that were drawn: with them the step is complete and goes to the server."""
        plan = self._plan
        if plan is None:
            return
        named = None
        if self._step is not None and self._step.head_rows is not None:
            with self._observation:
                named = self._read_lens(plan, self._step, tokens)
        logits, self._logits = self._logits, None
        with self._everything:
            self._send(plan, self._step, named, logits, tokens)
        self._plan = self._step = None

    def _read_lens(self, plan: Plan, step: _Step, tokens: torch.Tensor) -> NamedTokens | None:
        """All layers of all runs that want it, in one product with the unembedding."""
        import torch

        heads = plan.lens_heads
        stream = torch.stack(step.picked)  # [lens layers, runs, hidden_size]
        finished = self.layout.finish(stream.view(-1, self._hidden_size).to(self.dtype))
        logits = self.layout.unembed(finished)  # every rank takes part, one gets the whole vocabulary
        if logits is None or not self.publishes:
            return None
        requests = self._indices([head.request for head in heads])
        most = max(head.wants.lens_top for head in heads)
        reading = lens_math.read(
            logits.view(*stream.shape[:2], -1), tokens.view(-1).index_select(0, requests).long(), most
        )
        at = self._indices(plan.lens_layers)
        for name, numbers in zip(
            LENS_METRICS, (reading.entropy, reading.probability, reading.kl), strict=True
        ):
            if name in plan.metrics:
                column = step.values[:, plan.metrics.index(name)]
                column[step.head_rows[:, None], at[None, :]] = numbers.T  # type: ignore[index]
        return NamedTokens(
            entries=[head.entry for head in heads],
            layers=plan.lens_layers,
            ids=reading.top_ids.transpose(0, 1),
            probabilities=reading.top_probabilities.transpose(0, 1),
        )

    def _send(
        self,
        plan: Plan,
        step: _Step | None,
        named: NamedTokens | None,
        logits: torch.Tensor | None,
        tokens: torch.Tensor,
    ) -> None:
        """One copy to the host for each kind of number, one message."""
        import torch

        if logits is None or self.sender is None or not (plan.blocks or plan.bare):
            return
        blocks = [*plan.blocks, *plan.bare]
        requests = self._indices([block.request for block in blocks])
        drawn = tokens.view(-1).index_select(0, requests)
        wants_entropy = step is not None and any(head.wants.entropy for head in plan.heads)
        # In the order of the batch, so that no row of logits is copied to be read.
        final = lens_math.read_final(logits, tokens.view(-1).long(), entropy=wants_entropy)
        entropy = None
        if step is not None and final.entropy is not None:
            heads = [head for head in plan.heads if head.wants.entropy]
            entropy = torch.full((len(step.values),), torch.nan, device=self.device)
            at = self._indices([head.row for head in heads])
            entropy[at] = final.entropy.index_select(0, self._indices([head.request for head in heads]))
        step_out = DeviceStep(
            blocks=blocks,
            observed=len(plan.blocks),
            drawn=drawn,
            logprobs=final.logprobs.index_select(0, requests),
            ranks=final.ranks.index_select(0, requests),
            metrics=plan.metrics,
            layers=self.layout.count,
            values=None if step is None else self.registry.to_half(step.values, plan.metrics),
            entropy=entropy,
            named=named,
            failed=dict(self.failed),
        )
        # A failed run's rows are among them. The server leaves out the rows of runs that it knows to have
        # failed, so it has to know first.
        if self._failures.tell():
            self.sender.put(step_out)
        else:
            self.sender.dropped += 1


def _pieces(offset: int, start: int, revisions: list[Revision]) -> list[Steered]:
    """What acts on the tokens of one run, which begin at `offset` in the batch and at position `start`."""
    found: list[Steered] = []
    at = 0
    while at < len(revisions):
        revision = revisions[at]
        until = at + 1
        while until < len(revisions) and revisions[until] is revision:
            until += 1
        for action in revision.actions:
            first = max(start + at, action.start, 1)
            end = start + until if action.end is None else min(start + until, action.end)
            if first < end:
                found.append((range(offset + first - start, offset + end - start), action))
        at = until
    return found
