"""Operators, scopes, layers and composition on the real engine against transformers with forward hooks.

The hooks here write the formulas down once more, in plain loops over positions and vectors.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from steersight.vectors.action import Action, decide
from steersight.vectors.operators import NOTHING, Column, Operator, Rows, compose
from steersight.vectors.store import SteeringVector, VectorError

from .conftest import HIDDEN, Server
from .reference import Reference
from .taken import beyond_rounding
from .test_engine_truth import Collected


def push(h: torch.Tensor, vectors: list[tuple[SteeringVector, int, Action]]) -> torch.Tensor:
    """One token's stream [hidden_size] fp64 after everything that acts at a layer."""
    norm = h.norm()
    added = torch.zeros_like(h)
    for vector, index, action in vectors:
        unit, length = vector.directions[index].double(), float(vector.lengths[index])
        if action.operator == "add":
            added += action.strength * norm * unit
        elif action.operator == "add_absolute":
            added += action.strength * length * unit
        elif action.operator in ("feature_set", "feature_scale"):
            reader = vector.reader
            assert reader is not None
            raw = float(h @ reader.weight.double()) * (
                reader.scale_to / float(norm) if reader.scale_to else 1.0
            )
            fires = raw + reader.gate_bias > reader.threshold
            found = max(0.0, reader.gain * raw + reader.bias) if fires else 0.0
            wanted = action.strength if action.operator == "feature_set" else (1 + action.strength) * found
            added += (wanted - found) * length * unit
    if added.norm() > norm:
        added *= norm / added.norm()
    h = h + added
    for vector, index, action in vectors:
        unit = vector.directions[index].double()
        along = h @ unit
        if action.operator == "ablate":
            h = h - action.strength * along * unit
        elif action.operator == "clamp":
            share = float(along / h.norm())
            bound = min(max(share, action.lo), action.hi)
            if bound != share:
                rest = (h - along * unit).norm()
                h = h + action.strength * (bound * rest / math.sqrt(1 - bound * bound) - along) * unit
    return h


@torch.inference_mode()
def reread(
    reference: Reference, ids: list[int], vectors: Mapping[str, SteeringVector], actions: list[Action]
) -> tuple[list[int], np.ndarray]:
    """Best next token per position, and the norm of the stream per position and layer, all teacher-forced."""
    norms: dict[int, torch.Tensor] = {}

    def hook(layer: int) -> Callable[..., torch.Tensor]:
        def run(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
            stream = output[0].double()
            for position in range(1, len(ids)):
                acting = []
                for action in actions:
                    own = vectors[action.vector].layers
                    inside = (
                        layer in own
                        if action.layers is None
                        else action.layers[0] <= layer <= action.layers[1]
                    )
                    if inside and action.start <= position and (action.end is None or position < action.end):
                        nearest = min(range(len(own)), key=lambda at: abs(own[at] - layer))
                        acting.append((vectors[action.vector], nearest, action))
                if acting:
                    stream[position] = push(stream[position], acting)
            norms[layer] = stream.norm(dim=-1)
            return stream.float()[None]

        return run

    handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(reference.model.model.layers)]
    try:
        tokens = torch.tensor([ids])
        logits = reference.model(tokens, attention_mask=torch.ones_like(tokens)).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits.argmax(dim=-1).tolist(), torch.stack([norms[i] for i in sorted(norms)], dim=1).numpy()


CASES: dict[str, list[tuple[str, float, dict[str, Any]]]] = {
    "add": [("north", 0.2, {})],
    "add, absolute": [("north", 1.5, {"operator": "add_absolute"})],
    "add, absolute and negative": [("north", -1.5, {"operator": "add_absolute"})],
    "ablate": [("north", 1.0, {"operator": "ablate", "layers": [0, 29]})],
    "ablate, the other way": [("north", -1.0, {"operator": "ablate", "layers": [10, 14]})],
    "clamp": [("north", 1.0, {"operator": "clamp", "lo": 0.15, "layers": [8, 20]})],
    "clamp between": [("east", 1.0, {"operator": "clamp", "lo": -0.01, "hi": 0.01, "layers": [5, 25]})],
    "feature set": [("fires", 30.0, {"operator": "feature_set"})],
    "feature scaled": [("fires", -1.0, {"operator": "feature_scale"})],
    "feature added to": [("fires", 12.0, {})],
    "gated feature, inputs scaled": [("gated", 20.0, {"operator": "feature_set"})],
    "prompt only": [("north", 0.3, {"scope": "prompt"})],
    "reply only": [("north", 0.3, {"scope": "reply"})],
    "first five reply tokens": [("north", 0.4, {"scope": "reply", "first": 5})],
    "prompt and first three": [("north", 0.3, {"first": 3})],
    "one layer, not its own": [("north", 0.3, {"layers": [17, 17]})],
    "a range of layers": [("east", 0.1, {"layers": [6, 22]})],
    "together, with the cap": [
        ("north", 0.9, {"layers": [12, 14]}),
        ("east", 60.0, {"operator": "add_absolute", "layers": [12, 14]}),
        ("fires", 1.0, {"operator": "clamp", "hi": 0.02, "layers": [12, 14]}),
    ],
    "add, then ablate the same direction": [
        ("fires", 0.3, {"operator": "add", "layers": [12, 12]}), ("north", 1.0, {"operator": "ablate"}),
        ("east", 1.0, {"operator": "ablate", "layers": [12, 12]}),
    ],
}  # fmt: skip


@pytest.mark.engine
@pytest.mark.timeout(500)
async def test_every_operator_equals_a_forward_hook(server: Server, reference: Reference) -> None:
    vectors = server.engine.offer.vectors
    text = "Tell me about Paris."
    prompt = Collected(server, text).prompt
    decided = {
        name: [decide(vectors[v], strength, setting, len(prompt), 30) for v, strength, setting in case]
        for name, case in CASES.items()
    }
    # All at once, so that each is a neighbour of the others.
    runs = dict(
        zip(
            ["none", *CASES],
            await asyncio.gather(
                Collected(server, text).act("none", []),
                *(Collected(server, text).act(name, actions) for name, actions in decided.items()),
            ),
            strict=True,
        )
    )
    plain = runs.pop("none")
    problems = []
    for name, run in runs.items():
        best, norms = reread(reference, run.ids, vectors, decided[name])
        wrong = [p for p in range(len(prompt), len(run.ids)) if best[p - 1] != run.ids[p]]
        expected = norms[: len(run.ids) - 1]
        error = float((beyond_rounding("residual_norm", run.rows()[:, 0], expected) / expected).max())
        if wrong or error > 1e-3:
            problems.append(f"{name}: tokens {wrong} differ, norms by {error:.1e}")
        if np.array_equal(run.rows()[: len(prompt) + 1], plain.rows()[: len(prompt) + 1]):
            problems.append(f"{name}: it did nothing")
    best, _ = reread(reference, plain.ids, vectors, [])
    assert [best[p - 1] for p in range(len(prompt), len(plain.ids))] == plain.reply
    assert not problems, "\n".join(problems)


@pytest.mark.engine
@pytest.mark.timeout(120)
async def test_the_share_that_steering_added(server: Server) -> None:
    text = "Tell me about Paris."
    run = await Collected(server, text).act(
        "share", [Action("north", 0.25), Action("east", -1.0, "ablate")], metrics=["steering_share"]
    )
    share = run.rows()[:, 0]
    assert np.allclose(share[1:, 12], 0.25, rtol=1e-4), "north adds a quarter of the stream's length"
    assert not share[0].any(), "the first position is never steered"
    others = [layer for layer in range(30) if layer not in (8, 12, 20)]
    assert not share[:, others].any()
    assert (share[1:, [8, 20]] > 0).all()


# ---------------------------------------------------------------- without an engine


def vector(**more: Any) -> SteeringVector:
    given = {
        "id": "v", "label": "V", "description": "", "layers": [2], "directions": torch.ones(1, 4) * 3.0,
        "range": (-1.0, 1.0), "suggested": 0.5, "model": "m", "hidden_size": 4,
    }  # fmt: skip
    return SteeringVector(**{**given, **more})


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, Action("v", 0.5)),
        ({"scope": "reply"}, Action("v", 0.5, start=9)),
        ({"scope": "prompt"}, Action("v", 0.5, end=9)),
        ({"scope": "reply", "first": 3}, Action("v", 0.5, start=9, end=12)),
        ({"first": 1}, Action("v", 0.5, end=10)),
        ({"operator": "clamp", "hi": 0.1}, Action("v", 0.5, "clamp", hi=0.1)),
        ({"layers": [1, 5]}, Action("v", 0.5, layers=(1, 5))),
    ],
)
def test_a_setting_becomes_an_action(setting: dict[str, Any], expected: Action) -> None:
    action = decide(vector(), 0.5, setting, prompt_tokens=10, layers=6)
    assert action == expected
    assert Action.from_map(action.to_map()) == action


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"operator": "feature_set"}, "cannot do 'feature_set'"),
        ({"operator": "clamp"}, "give a smallest or a largest projection"),
        ({"operator": "clamp", "lo": 0.3, "hi": 0.1}, "above its largest"),
        ({"layers": [3, 6]}, "the model's are 0 to 5"),
        ({"layers": [4, 3]}, "cannot act at layers 4 to 3"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VectorError, match=sentence):
        decide(vector(), 0.5, setting, prompt_tokens=10, layers=6)


def test_a_vector_in_attention_is_only_added_there() -> None:
    mine = vector(site="attention", operator="add_absolute")
    assert mine.operators == ["add_absolute"]
    with pytest.raises(VectorError, match="own layer only"):
        decide(mine, 1.0, {"layers": [2, 2]}, prompt_tokens=10, layers=6)


def test_what_acts_on_one_token_changes_no_other() -> None:
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(4, HIDDEN, generator=generator)
    unit = torch.nn.functional.normalize(torch.randn(6, HIDDEN, generator=generator), dim=-1)
    strength, operator = torch.zeros(4, 1), torch.full((4, 1), float(NOTHING))
    columns = []
    for code in Operator:
        mine, kind = strength.clone(), operator.clone()
        mine[1], kind[1] = 0.7, float(code)
        columns.append(
            Column(
                Rows(unit, int(code)), mine, kind, torch.full((4, 1), -0.01), torch.full((4, 1), 0.01),
                frozenset({NOTHING, code}), Rows(torch.ones(6, 1), 0), Rows(unit, 0),
                Rows(torch.zeros(1, 5), 0),
            )
        )  # fmt: skip
    delta = compose(h, columns)
    assert delta[1].any()
    assert not delta[[0, 2, 3]].any()
