"""The plan of one step: who is where in the batch, with which revision, and what acts on which tokens.

Made when the scheduler has said which runs are in the batch, before anything is computed; the eager pass, the
graph pass and the batch that leaves all follow it. Pure: no torch, no vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..metrics.logit_lens import lens_layers

if TYPE_CHECKING:
    from ..metrics import Registry
    from ..vectors.action import Action
    from .request import Wants
    from .run_state import RunState, RunStates


class Span(NamedTuple):
    """One request's part of the batch."""

    request_id: str
    """vLLM's"""
    start: int
    """Position of its first token."""
    tokens: int
    """How many it has in this step."""
    samples: bool = True
    """Whether what is sampled behind them is its next token. Behind a piece of a prompt that goes on, or of
    what a preemption threw away, the next token is known, and what is sampled is nothing."""
    blocks: Sequence[int] = ()
    """Numbers of its blocks of the KV cache, in order."""


Steered = tuple[range, "Action"]
"""Tokens of the batch, and what acts on all of them."""


class Call(NamedTuple):
    """A function that is to be called for some tokens of one run."""

    run: str
    where: range
    """Tokens of the batch."""
    position: int
    """Of the first of them."""
    prompt_tokens: int
    """Of the run."""
    action: Action


class Block(NamedTuple):
    """One run's part of a step."""

    run: str
    start: int
    """Position of the first row that is sent; the sampled token's where none is."""
    revisions: list[int]
    """Per row."""
    samples: bool
    """Whether the sampled token is its next one."""
    request: int
    """Index of the request in the batch, and so in logits and sampled tokens."""
    alternatives: int = 0
    """So many of the likeliest tokens are to be named for the place of the sampled one."""
    watch: int = 0
    """Number of what the run is watched with in this step."""


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
class StepPlan:
    """What one step has to do."""

    tokens: int
    blocks: list[Block] = field(default_factory=list)
    """Those whose rows have numbers."""
    bare: list[Block] = field(default_factory=list)
    """Those of which only positions, revisions and tokens are wanted."""
    keep: list[int] = field(default_factory=list)
    """Batch index of each row to send, in the order of `blocks`."""
    steered: list[Steered] = field(default_factory=list)
    """Of each token in the order in which its vectors compose."""
    steered_runs: list[str] = field(default_factory=list)
    """Runs that `steered` acts on."""
    calls: list[Call] = field(default_factory=list)
    """The functions that act, of each token in the order in which they compose: after all vectors."""
    metrics: list[str] = field(default_factory=list)
    """What any run of the step wants, in the order of the registry."""
    summed: set[str] = field(default_factory=set)
    """Runs whose streams are summed."""
    heads: list[Head] = field(default_factory=list)
    lens_layers: list[int] = field(default_factory=list)
    """Layers whose streams go through the unembedding; the last is among them."""

    @property
    def lens_heads(self) -> list[Head]:
        """The runs that want the logit lens."""
        return [head for head in self.heads if head.wants.lens_stride]

    @property
    def rows(self) -> list[tuple[str, int, int]]:
        """(run, first position, rows) of the blocks with numbers, in the order of the kept rows."""
        return [(block.run, block.start, len(block.revisions)) for block in self.blocks]

    def acting(self) -> list[list[Action]]:
        """Which vectors act on each token of the batch, in the order in which they compose."""
        rows: list[list[Action]] = [[] for _ in range(self.tokens)]
        for where, action in self.steered:
            for token in where:
                rows[token].append(action)
        return rows

    def steer_nobody(self) -> None:
        """Let the rest of the step pass without vectors."""
        self.steered, self.steered_runs = [], []

    def observe_nobody(self) -> None:
        """Let the rest of the step pass without numbers; tokens of unwatched runs still leave."""
        self.blocks, self.keep, self.metrics, self.heads, self.lens_layers = [], [], [], [], []
        self.summed = set()


def make_plan(
    spans: Sequence[Span],
    runs: RunStates,
    registry: Registry,
    layers: int,
    *,
    without: set[str],
    fail: Callable[[str, Exception], None],
) -> StepPlan:
    """Plan a step.

    Args:
        spans: the batch, in its order.
        runs: of them the requests that are runs; each is told that its tokens are computed now.
        registry: the metrics.
        layers: number of the model's decoder layers.
        without: metrics that are switched off.
        fail: called with a run that cannot be planned, and why; the others are.
    """
    plan = StepPlan(tokens=sum(span.tokens for span in spans))
    metrics: set[str] = set()
    offset = 0
    for request, span in enumerate(spans):
        state = runs.get(span.request_id)
        if state is not None and not state.failed:
            try:
                metrics.update(_plan_run(plan, state, request, span, offset))
            except Exception as error:
                fail(state.run, error)
        offset += span.tokens
    plan.metrics = registry.ordered(metrics - without)
    strides = {head.wants.lens_stride for head in plan.lens_heads}
    plan.lens_layers = sorted({layer for stride in strides for layer in lens_layers(layers, stride)})
    return plan


def _plan_run(plan: StepPlan, state: RunState, request: int, span: Span, offset: int) -> tuple[str, ...]:
    """Add what one run needs; returns the metrics it wants. Where it raises, it has added nothing."""
    _, start, count, samples, _ = span
    if not state.foreknown(start + count):
        raise RuntimeError(
            f"Token {start + count - 1} was not known when its pass was planned, so that nobody could say "
            "whether it is a part of the thought or of the answer."
        )
    revisions = [state.revision_at(start + i) for i in range(count)]
    shift = offset - start
    pieces: list[Steered] = []
    calls: list[Call] = []
    for first, end, action in state.acting(start, start + count):
        where = range(first + shift, end + shift)
        if action.is_function:
            _add_call(calls, Call(state.run, where, first, state.prompt_tokens, action))
        else:
            pieces.append((where, action))
    # Not sent again when a preempted run is recomputed, nor where nobody asked.
    first = max(start, state.next_position, state.first_row)
    state.next_position = max(state.next_position, start + count)
    if pieces:
        plan.steered.extend(pieces)
        plan.steered_runs.append(state.run)
    plan.calls.extend(calls)
    first = min(first, start + count)
    if first == start + count and not samples:
        return ()  # a piece of what was computed before: there is nothing to tell
    block = Block(
        state.run, first, [r.rev for r in revisions[first - start :]], samples, request,
        state.wants.alternatives if samples else 0, state.watch,
    )  # fmt: skip
    if state.wants.no_rows or not block.revisions:
        plan.bare.append(block)
        return ()
    plan.blocks.append(block)
    plan.keep.extend(range(offset + first - start, offset + count))
    if state.wants.sums:
        plan.summed.add(state.run)
    if samples and (state.wants.entropy or state.wants.lens_stride):
        plan.heads.append(Head(len(plan.blocks) - 1, request, len(plan.keep) - 1, state.wants))
    return state.wants.metrics


def _add_call(calls: list[Call], call: Call) -> None:
    """With what acts on the tokens in front of these, where that is the same: another slider has moved there,
    and a function is to see what it acts on in one piece."""
    for index, before in enumerate(calls):
        if before.action == call.action and before.where.stop == call.where.start:
            calls[index] = before._replace(where=range(before.where.start, call.where.stop))
            return
    calls.append(call)
