"""Which revision a position is computed with, and which rows leave the worker: without model or engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steersight.engine.channel import RowSender
from steersight.engine.layout import Layout
from steersight.engine.observer import Observer
from steersight.engine.outgoing import DeviceStep
from steersight.engine.plan import Block, Span, StepPlan
from steersight.engine.reply import Entry, entries
from steersight.engine.request import Wants
from steersight.engine.steering import Steering, steering_tables
from steersight.engine.step import NO_TOKEN
from steersight.metrics import Registry
from steersight.vectors.action import Action

from .banks import make_bank
from .taken import shown

HIDDEN = 8
METRICS = ["residual_norm", "update_norm", "cosine_below"]


class Outbox:
    """Stands where the sender is; keeps the steps."""

    dropped = 0

    def __init__(self) -> None:
        self.steps: list[DeviceStep] = []

    def put(self, step: DeviceStep) -> bool:
        self.steps.append(step)
        return True

    def entries(self) -> list[tuple[str, Entry]]:
        """What the server makes of them."""
        return [found for step in self.steps for found in entries(step.arrive())]


def make_observer(outbox: Outbox | None = None) -> Observer:
    direction = torch.zeros(HIDDEN)
    direction[0] = 1.0
    bank = make_bank({"v": {1: direction}}, 2)
    sender: RowSender | None = outbox  # type: ignore[assignment]  # same put, no socket
    layers = [torch.nn.Identity(), torch.nn.Identity()]
    layout = Layout(layers, "pair", attention=None, final=[], unembed=lambda stream: stream)
    return Observer(
        layout, bank, torch.device("cpu"), sender, registry=Registry([("v", "v")]), hidden_size=HIDDEN,
        max_tokens=64, max_runs=8, dtype=torch.float32,
    )  # fmt: skip


def acting(strengths: dict[str, float]) -> tuple[Action, ...]:
    return tuple(Action(name, strength) for name, strength in strengths.items())


def options(run: str, strengths: dict[str, float] | None = None, first_row: int = 0) -> dict[str, object]:
    return {
        "run": run, "actions": [action.to_map() for action in acting(strengths or {})], "metrics": METRICS,
        "first_row": first_row,
        "entropy": False, "lens_stride": 0, "lens_top": 0,
    }  # fmt: skip


def step(observer: Observer, *spans: tuple[str, int, int] | tuple[str, int, int, bool]) -> StepPlan:
    observer.begin([Span(*span) for span in spans])
    plan = observer._plan
    assert plan is not None
    return plan


def steered(observer: Observer, plan: StepPlan, layer: int = 1) -> Steering | None:
    """What the plan comes to at a layer."""
    return steering_tables(plan.steered, observer.bank).residual.get(layer)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 30))
def test_a_recomputed_position_keeps_its_revision(pauses: list[int], back: int) -> None:
    """Steer after every few tokens, then preempt: recomputation sees the same revisions and sends no row."""
    observer = make_observer()
    observer.add("r", options("run"))
    revs = [rev for block in step(observer, ("r", 0, 3)).blocks for rev in block.revisions]
    for rev, pause in enumerate(pauses, start=1):
        assert observer.steer("run", rev, acting({"v": rev / 10})) == len(revs)
        for _ in range(pause):
            revs += step(observer, ("r", len(revs), 1)).blocks[0].revisions
    if len(revs) > 1:
        piece = step(observer, ("r", 0, len(revs) - 1, False))
        assert piece.blocks == piece.bare == [], "a piece of it has an entry, and nothing to tell"
    again = step(observer, ("r", 0, len(revs)))
    assert again.blocks == [], "a row was sent twice"
    assert again.bare == [Block("run", len(revs), [], True, 0)], "the token behind the rows has no entry"
    state = observer.runs.get("r")
    assert state is not None
    assert [state.revision_at(p).rev for p in range(len(revs))] == revs
    assert revs == sorted(revs)
    found = steered(observer, again)
    assert (found.rows.tolist() if found else []) == [p for p, rev in enumerate(revs) if rev > 0]


def test_the_first_position_and_the_neighbour_are_never_steered() -> None:
    observer = make_observer()
    observer.add("a", options("a", {"v": 0.5}))
    observer.add("b", options("b"))
    plan = step(observer, ("a", 0, 3), ("b", 0, 2))
    found = steered(observer, plan)
    assert found is not None
    assert found.rows.tolist() == [1, 2]
    (column,) = found.columns
    assert column.strength.tolist() == [[0.5], [0.5]]


def test_prompt_rows_can_be_left_out() -> None:
    observer = make_observer()
    observer.add("a", options("a", first_row=3))
    first = step(observer, ("a", 0, 3))
    assert (first.blocks, first.bare) == ([], [Block("a", 3, [], True, 0)])
    assert step(observer, ("a", 3, 1)).blocks == [Block("a", 3, [0], True, 0)]


def test_a_piece_of_a_prompt_has_rows_and_no_token() -> None:
    """What is sampled behind it is thrown away, and so are its entropy and its logit lens."""
    outbox = Outbox()
    observer = make_observer(outbox)
    observer.add("a", {**options("a"), "entropy": True, "lens_stride": 1, "lens_top": 2})
    observer.add("b", options("b"))
    plan = step(observer, ("a", 0, 2, False), ("b", 0, 1))
    assert plan.heads == []
    assert [block.samples for block in plan.blocks] == [False, True]
    for layer in range(2):
        stream = torch.ones(3, HIDDEN)
        if layer == 0:
            observer.enter((None, stream), {})
        observer.layer(layer, (stream, stream))
    observer.forwarded()
    observer.final(torch.zeros(2, 5))
    observer.sampled(torch.tensor([[3], [4]]))
    (_, a), (_, b) = outbox.entries()
    assert (a.token, b.token) == (NO_TOKEN, 4)
    assert (a.start, a.end, a.first) == (0, 2, 0)
    assert [head.row for head in step(observer, ("b", 1, 1), ("a", 2, 1)).heads] == [1]


def test_a_steer_that_comes_before_its_run_is_not_lost() -> None:
    observer = make_observer()
    assert observer.steer("a", 4, acting({"v": 0.1})) is None
    observer.add("r", options("a"))
    assert step(observer, ("r", 0, 2)).blocks == [Block("a", 0, [4, 4], True, 0)]
    observer.remove("r")
    assert len(observer.runs) == 0
    assert observer.steer("a", 5, ()) is None


def test_what_is_watched_changes_between_two_steps() -> None:
    """Also before the run's first step; rows that a preemption lets be computed again are not sent again."""
    observer = make_observer()
    observer.watch("a", 1, Wants(("update_norm",)))
    observer.add("r", {**options("a"), "sums": True})
    observer.add("n", options("neighbour"))
    first = step(observer, ("r", 0, 3), ("n", 0, 2))
    assert first.metrics == METRICS, "the neighbour wants all"
    assert [(block.run, block.watch) for block in first.blocks] == [("a", 1), ("neighbour", 0)]
    assert first.summed == {"a"}, "what was asked for of its streams stays"
    observer.remove("n")
    assert step(observer, ("r", 3, 1)).metrics == ["update_norm"]
    observer.watch("a", 2, Wants(("cosine_below",), entropy=True))
    (block,) = step(observer, ("r", 4, 1)).blocks
    assert (block.start, block.watch) == (4, 2)
    again = step(observer, ("r", 0, 6))
    assert again.metrics == ["cosine_below"]
    assert [(block.start, len(block.revisions)) for block in again.blocks] == [(5, 1)]
    with pytest.raises(KeyError, match="no metric projection:gone"):
        observer.watch("a", 3, Wants(("projection:gone",)))
    assert step(observer, ("r", 6, 1)).blocks[0].watch == 2


def test_who_wants_alternatives_only_costs_no_streams() -> None:
    observer = make_observer()
    observer.add("r", {**options("a"), "metrics": [], "alternatives": 5})
    plan = step(observer, ("r", 0, 3))
    assert (plan.keep, plan.blocks) == ([], [])
    assert [(block.alternatives, len(block.revisions)) for block in plan.bare] == [(5, 3)]


def test_numbers_and_steering_of_one_step() -> None:
    outbox = Outbox()
    observer = make_observer(outbox)
    observer.add("a", options("a", {"v": 0.5}))
    observer.add("b", options("b"))
    step(observer, ("a", 0, 2), ("b", 0, 1))
    generator = torch.Generator().manual_seed(1)
    entering, h0, r0, h1, r1 = (torch.randn(3, HIDDEN, generator=generator) for _ in range(5))
    before = h1.clone()
    observer.enter((None, entering), {})
    observer.layer(0, (h0, r0))
    observer.layer(1, (h1, r1))
    observer.forwarded()
    logits = torch.randn(2, 16, generator=generator)
    observer.final(logits)
    drawn = torch.tensor([[3], [5]])
    expected = torch.log_softmax(logits, dim=-1)
    logits.zero_()  # what a sampler may do
    observer.sampled(drawn)
    pushed = before + r1
    norm = pushed[1].norm()
    assert torch.equal(h1[[0, 2]], before[[0, 2]]), "an unsteered token was touched"
    assert torch.allclose(h1[1], before[1] + 0.5 * norm * torch.eye(HIDDEN)[0], atol=1e-6)
    (found,) = outbox.steps
    sent = found.arrive()
    assert [(run, e.start, e.revisions, e.token) for run, e in entries(sent)] == [
        ("a", 0, [0, 0], 3), ("b", 0, [0], 5),
    ]  # fmt: skip
    for (_, entry), row in zip(entries(sent), expected, strict=True):
        assert entry.logprob == pytest.approx(float(row[entry.token]), abs=1e-5)
        assert entry.rank == int((row >= row[entry.token]).sum())
    values = shown(sent.values, sent.metrics)
    after = h1 + r1
    assert np.allclose(values[:, 0, 1], after.norm(dim=-1), rtol=2e-3)
    assert np.allclose(values[:, 1, 1], (pushed - (h0 + r0)).norm(dim=-1), rtol=2e-3)
    assert np.allclose(values[:, 2, 1], torch.cosine_similarity(after, h0 + r0, dim=-1), atol=1e-3)
    assert np.allclose(values[:, 2, 0], torch.cosine_similarity(h0 + r0, entering, dim=-1), atol=1e-3)
