"""A graph that was not recorded whole is refused at load; without CUDA what it would replay is called."""

from __future__ import annotations

import pytest
import torch

from steersight.engine.bank import VectorBank
from steersight.engine.graph import GraphPass
from steersight.engine.layout import Layout, UnsupportedModelError
from steersight.engine.observer import Observer
from steersight.engine.proof import prove_replays
from steersight.metrics import Registry

from .banks import small_pool

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
