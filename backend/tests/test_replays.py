"""A graph that was not recorded whole is refused at load; without CUDA what it would replay is called."""

from __future__ import annotations

import pytest
import torch

from steersight.engine.bank import VectorBank
from steersight.engine.graph import NUMBERS, GraphPass
from steersight.engine.layout import Layout, UnsupportedModelError
from steersight.engine.observer import Observer
from steersight.engine.plan import Span
from steersight.engine.proof import prove_replays
from steersight.engine.request import RunOptions, Wants
from steersight.metrics import Registry
from steersight.vectors.action import Action

from .banks import banked, small_pool, steering_vector

HIDDEN, LAYERS = 16, 3


class Model:
    """Three layers, which run eagerly with the observer's hooks or replay what was recorded."""

    def __init__(self, left_out: set[str]) -> None:
        layers = [torch.nn.Identity() for _ in range(LAYERS)]
        layout = Layout(layers, "pair", attention=None, final=[], unembed=lambda stream: stream)
        bank = VectorBank(small_pool(LAYERS, HIDDEN))
        self.graph = GraphPass(layout, bank, 8, HIDDEN, torch.device("cpu"))
        self.observer = Observer(
            layout, bank, torch.device("cpu"), None, registry=Registry(), hidden_size=HIDDEN,
            max_tokens=8, max_runs=8, dtype=torch.float32, graph=self.graph,
        )  # fmt: skip
        self._left_out = left_out
        # What the test says of recording, not CUDA.
        self.graph.recording = lambda: False  # type: ignore[method-assign]

    def run(self, rows: int, replay: bool) -> None:
        generator = torch.Generator().manual_seed(5)
        hidden = torch.randn(rows, HIDDEN, generator=generator)
        residual = torch.randn(rows, HIDDEN, generator=generator)
        weights = torch.randn(LAYERS, HIDDEN, HIDDEN, generator=generator)
        if not replay:
            self.observer.enter((None, hidden + residual), {})
        elif "enter" not in self._left_out:
            self.graph.enter(hidden + residual)
        for layer in range(LAYERS):
            residual = hidden + residual
            hidden = torch.tanh(residual @ weights[layer])
            if not replay:
                self.observer.layer(layer, (hidden, residual))
            elif f"layer {layer}" not in self._left_out:
                self.graph.layer(layer, hidden, residual)


def prove(*left_out: str) -> Model:
    model = Model(set(left_out))
    prove_replays(model.observer, [1, 2, 8], model.run, HIDDEN)
    return model


def test_a_graph_that_was_recorded_whole_is_taken_and_nothing_stays() -> None:
    model = prove()
    assert len(model.observer.runs) == 0
    assert model.observer.bank.vectors == {}
    assert not model.graph.acting.counts.any()
    assert len(model.observer.bank.pool) == 0


@pytest.mark.parametrize("hook", ["enter", *(f"layer {layer}" for layer in range(LAYERS))])
def test_a_hook_that_was_not_recorded_is_found(hook: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"for 1 runs is not what the same step is eagerly"):
        prove(hook)


def test_steering_that_was_not_recorded_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are kept, and nothing is pushed."""
    model = Model(set())
    monkeypatch.setattr(model.graph, "upload", lambda _rows: None)
    with pytest.raises(UnsupportedModelError, match="after layer 1"):
        prove_replays(model.observer, [1], model.run, HIDDEN)


def test_a_graph_that_reads_a_prompt_steers_and_shows_each_of_its_tokens() -> None:
    """A run that writes beside one whose prompt is read from its second token on, steered in a part of it."""
    model = Model(set())
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(7))
    model.observer.add_vector("v", banked(steering_vector("v", {1: direction}), model.observer.bank.pool))

    def numbers(replay: bool) -> torch.Tensor:
        for name, action in {
            "writes": Action("v", 0.5),
            "reads": Action("v", -1.0, start=2, end=4),
        }.items():
            model.observer.add(name, RunOptions(name, wants=Wants(NUMBERS), actions=(action,)).to_wire())
        found = model.observer.rehearse(
            [Span("writes", 9, 1), Span("reads", 1, 4)], lambda: model.run(5, replay)
        )
        for name in ("writes", "reads"):
            model.observer.remove(name)
        return found

    eager, replayed = numbers(replay=False), numbers(replay=True)
    assert eager.shape == (5, len(NUMBERS), LAYERS)
    assert torch.allclose(eager, replayed, rtol=1e-5)
    plain = Model(set())
    for name in ("writes", "reads"):
        plain.observer.add(name, RunOptions(name, wants=Wants(NUMBERS)).to_wire())
    spans = [Span("writes", 9, 1), Span("reads", 1, 4)]
    unsteered = plain.observer.rehearse(spans, lambda: plain.run(5, replay=True))
    moved = (replayed != unsteered).any(dim=-1).any(dim=-1)
    assert moved.tolist() == [True, False, True, True, False]


def test_what_is_watched_is_chosen_for_each_replay() -> None:
    """The graph is recorded once; a run gets other numbers in mid-run, and its neighbour the same."""
    model = Model(set())
    model.observer.add("one", RunOptions("one", wants=Wants(("residual_norm",))).to_wire())

    def rehearse(at: int, replay: bool) -> torch.Tensor:
        return model.observer.rehearse([Span("one", at, 1)], lambda: model.run(1, replay))

    assert rehearse(3, replay=True).shape == (1, 1, LAYERS)
    later = ("update_norm", "cosine_below", "steering_share")
    model.observer.watch("one", 1, Wants(later, lens_stride=0))
    eager, replayed = rehearse(4, replay=False), rehearse(5, replay=True)
    assert eager.shape == (1, len(later), LAYERS)
    assert torch.isfinite(replayed).all()
    assert torch.allclose(eager, replayed, rtol=1e-5)


def test_a_step_that_no_graph_can_hold_leaves_the_table_alone() -> None:
    model = Model(set())
    model.observer.add("reads", RunOptions("reads", wants=Wants(NUMBERS)).to_wire())
    found = model.observer.rehearse([Span("reads", 0, 9)], lambda: model.run(9, replay=False))
    assert found.shape == (9, len(NUMBERS), LAYERS)
