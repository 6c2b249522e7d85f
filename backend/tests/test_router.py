"""Numbers of routers, and where they are taken; `test_families.py` holds them against transformers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from steersight.engine.bank import VectorBank
from steersight.engine.experts import ExpertRouters, Routed
from steersight.engine.graph import GraphPass
from steersight.engine.layout import Layout, UnsupportedModelError
from steersight.engine.loading import experts_of
from steersight.engine.observer import Observer
from steersight.engine.options import ModelFacts
from steersight.engine.proof import prove_replays
from steersight.engine.service import EngineService
from steersight.metrics import Experts, Registry
from steersight.metrics.router import column_of, read_router, table
from steersight.protocol.messages import ExpertsInfo
from steersight.ws.handshake import model_info

from .banks import small_pool

LAYERS, HIDDEN, COUNT, CHOSEN = 3, 16, 6, 2
EXPERTS = Experts(COUNT, CHOSEN)


@given(arrays.arrays(np.float32, (3, COUNT), elements=st.floats(-60, 60, width=32)), st.booleans(), st.data())
def test_a_reading_is_what_its_words_say(logits: np.ndarray, sigmoid: bool, data: st.DataObject) -> None:
    ids = np.array([data.draw(st.permutations(range(COUNT)))[:CHOSEN] for _ in range(3)])
    weights = data.draw(arrays.arrays(np.float32, (3, CHOSEN), elements=st.floats(0, 2, width=32)))
    found = read_router(
        torch.from_numpy(logits), torch.from_numpy(ids), torch.from_numpy(weights),
        "sigmoid" if sigmoid else "softmax",
    )  # fmt: skip
    for row in range(3):
        wide = logits[row].astype(np.float64)
        p = 1 / (1 + np.exp(-wide)) if sigmoid else np.exp(wide - wide.max())
        p = p / p.sum()
        order = sorted(range(CHOSEN), key=lambda at: -weights[row, at])
        assert found.ids[row].tolist() == [ids[row, at] for at in order]
        assert found.weights[row].tolist() == [weights[row, at] for at in order]
        entropy = -sum(one * math.log(one) for one in p if one > 0)
        assert math.isclose(float(found.entropy[row]), entropy, rel_tol=1e-4, abs_tol=1e-5)
        assert math.isclose(float(found.top[row]), p[ids[row, order[0]]], rel_tol=1e-4, abs_tol=1e-6)
        assert math.isclose(float(found.taken[row]), p[ids[row]].sum(), rel_tol=1e-4, abs_tol=1e-6)


def test_what_is_chosen_outside_has_no_scores() -> None:
    found = read_router(None, torch.tensor([[4, 1]]), torch.tensor([[0.2, 0.8]]))
    assert found.ids.tolist() == [[1, 4]]
    ((entropy, top, taken, *chosen),) = table(found).tolist()
    assert math.isnan(entropy)
    assert math.isnan(top)
    assert math.isnan(taken)
    assert chosen == [1, pytest.approx(0.8), 4, pytest.approx(0.2)]


def test_what_is_no_expert_is_none() -> None:
    """A router that is handed no numbers may choose anything; vLLM gives -1 for padding."""
    found = read_router(torch.full((1, COUNT), torch.nan), torch.tensor([[-1, COUNT]]), torch.ones(1, CHOSEN))
    assert torch.isnan(found.top).all()


def test_models_with_experts_have_their_metrics_and_others_none() -> None:
    names = [metric.id for metric in Registry(experts=EXPERTS).all() if metric.family == "router"]
    assert names == [
        "router_entropy", "router_top", "router_taken",
        "expert:1", "expert_weight:1", "expert:2", "expert_weight:2",
    ]  # fmt: skip
    assert [one for one in Registry().all() if one.family == "router"] == []
    assert "expert:2" in Registry(experts=EXPERTS).with_vectors([("v", "v")])
    reading = read_router(torch.zeros(1, COUNT), torch.tensor([[0, 1]]), torch.ones(1, CHOSEN))
    assert [column_of(name) for name in names] == list(range(table(reading).shape[1]))


@pytest.mark.parametrize(
    ("config", "experts"),
    [
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, Experts(8, 2)),
        ({"num_experts": [64, 64], "moe_topk": [6, 8]}, Experts(64, 6)),
        ({"num_experts": None, "num_experts_per_tok": 2}, None),
        ({"num_local_experts": 0, "num_experts_per_tok": 8}, None),
        ({}, None),
    ],
)
def test_a_configuration_says_how_many_experts_there_are(
    config: dict[str, Any], experts: Experts | None
) -> None:
    assert experts_of(SimpleNamespace(**config)) == experts


def test_a_client_is_told_of_them() -> None:
    facts = ModelFacts("m", 2, 8, 100, "float32", 100, [], experts=EXPERTS)
    told = model_info(cast(EngineService, SimpleNamespace(model=facts)))
    assert told is not None
    assert told.experts == ExpertsInfo(count=COUNT, chosen=CHOSEN)


class Router:
    """As much of vLLM's as is asked."""

    def __init__(self, top_k: int = CHOSEN, scoring: str = "softmax") -> None:
        self.top_k, self.scoring_func = top_k, scoring

    def _compute_routing(
        self, hidden: torch.Tensor, logits: torch.Tensor, _dtype: None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert len(hidden) == len(logits)
        scores = logits.softmax(dim=-1)
        bias = getattr(self, "e_score_correction_bias", None)
        ids = (scores if bias is None else scores + bias).topk(self.top_k, dim=-1).indices
        return scores.gather(-1, ids), ids


class Runner(torch.nn.Module):
    """vLLM's `MoERunner`, as far as it is watched."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router, self.routed_scaling_factor = router, 1.0

    def _apply_quant_method(self, *, hidden_states: torch.Tensor, router_logits: torch.Tensor) -> str:
        return f"{len(hidden_states)} tokens, {router_logits.shape[1]} experts"


def layer(*runners: Runner) -> torch.nn.Module:
    return torch.nn.ModuleList(runners)


def test_a_router_is_found_in_its_layer_and_goes_on_as_it_did() -> None:
    layers = [layer(), layer(Runner(Router())), layer(Runner(Router()), Runner(Router()))]
    routers = ExpertRouters(layers, EXPERTS)
    assert list(routers.runners) == [1], "of two routers in a layer nobody can say which is meant"
    seen: list[tuple[int, Routed]] = []
    routers.watch(lambda *what: seen.append(what))
    logits = torch.randn(5, COUNT)
    runner = routers.runners[1]
    assert runner._apply_quant_method(hidden_states=torch.zeros(5, 1), router_logits=logits) == (
        f"5 tokens, {COUNT} experts"
    )
    ((index, routed),) = seen
    assert (index, routed.ids) == (1, None)
    assert torch.equal(routed.logits, logits)
    runner.routed_scaling_factor = 2.5
    found = routers.read([1], [routed.at(torch.tensor([3]), 1)])
    top = logits[3].softmax(dim=-1).topk(CHOSEN)
    assert found.ids.tolist() == [top.indices.tolist()]
    assert torch.allclose(found.weights[0], 2.5 * top.values)


@pytest.mark.parametrize("own_numbers", [False, True])
def test_many_layers_are_read_as_each_by_itself(own_numbers: bool) -> None:
    layers = [layer(), *(layer(Runner(Router())) for _ in range(3))]
    routers = ExpertRouters(layers, EXPERTS)
    for index, runner in routers.runners.items():
        runner.routed_scaling_factor = 1.0 + index
        if own_numbers:
            runner.router.e_score_correction_bias = torch.full((COUNT,), float(index)).cumsum(0)
    routed = [Routed(torch.randn(5, COUNT), None) for _ in routers.runners]
    together = table(routers.read([1, 2, 3], routed)).view(3, 5, -1)
    for place, index in enumerate(routers.runners):
        alone = table(routers.read([index], [routed[place]]))
        assert torch.equal(together[place], alone)


def test_routers_that_nobody_can_read_are_left_alone() -> None:
    odd = [layer(Runner(Router(scoring="sqrtsoftplus"))), layer(Runner(Router(top_k=1)))]
    assert ExpertRouters(odd, EXPERTS).runners == {}


class Model:
    """Layers of which the last two have experts, run eagerly or replayed from what was recorded."""

    def __init__(self, *, record: bool = True) -> None:
        layers = [layer(), *(layer(Runner(Router())) for _ in range(LAYERS - 1))]
        layout = Layout(layers, "single", attention=None, final=[], unembed=lambda stream: stream)
        bank = VectorBank(small_pool(LAYERS, HIDDEN))
        routers = ExpertRouters(layers, EXPERTS)
        self.record = record
        self.graph = GraphPass(layout, bank, 8, HIDDEN, torch.device("cpu"), routers)
        self.observer = Observer(
            layout, bank, torch.device("cpu"), None, registry=Registry(experts=EXPERTS), hidden_size=HIDDEN,
            max_tokens=8, max_runs=8, dtype=torch.float32, graph=self.graph, routers=routers,
        )  # fmt: skip
        # What the test says of recording, not CUDA.
        self.graph.recording = lambda: False  # type: ignore[method-assign]

    def run(self, rows: int, replay: bool) -> None:
        generator = torch.Generator().manual_seed(5)
        stream = torch.randn(rows, HIDDEN, generator=generator)
        gates = torch.randn(LAYERS, HIDDEN, COUNT, generator=generator)
        if replay:
            self.graph.enter(stream)
        else:
            self.observer.enter((), {"hidden_states": stream})
        for index in range(LAYERS):
            if index > 0:
                routed = Routed(stream @ gates[index], None)
                if not replay:
                    self.observer.routed(index, routed)
                elif self.record:
                    self.graph.routed(index, routed)
            stream = torch.tanh(stream)
            if replay:
                self.graph.layer(index, stream, None)
            else:
                self.observer.layer(index, stream)


def test_a_graph_keeps_what_routers_were_handed() -> None:
    """The metrics of the family `router` are the same, eagerly and replayed, and so is the proof's."""
    model = Model()
    prove_replays(model.observer, [1, 4, 8], model.run, HIDDEN)


def test_routers_that_were_not_recorded_are_found() -> None:
    model = Model(record=False)
    with pytest.raises(UnsupportedModelError, match="router_entropy after layer 1"):
        prove_replays(model.observer, [4], model.run, HIDDEN)
