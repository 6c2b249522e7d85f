"""Every metric and one steered reply of every model family, held against transformers in fp32.

One process serves all checkpoints in turn (tests/family_process.py); what it wrote down is compared here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from steersight.metrics import BUILT_IN

from .families import FAMILIES, MORE, WITHOUT_PARTS
from .family_process import METRICS, PROMPTS, STRENGTHS, TOKENS, FamilyProcess, Served, vectors
from .family_reference import FamilyReading, FamilyReference
from .taken import beyond_rounding

pytestmark = pytest.mark.timeout(300)
TOLERANCE = 1e-3
# Where a number crosses zero, or nears it, a relative error means nothing: below this size it is held
# absolute.
FLOOR = 0.05
NO_FLOOR = {"residual_norm", "update_norm", "attention_norm", "mlp_norm"}
PARTS = ("attention_norm", "mlp_norm", "attention_share")


def worst(metric: str, found: np.ndarray, expected: np.ndarray, floor: float) -> float:
    """Largest relative error beyond rounding; below `floor` it is held absolute, in units of the floor."""
    assert found.shape == expected.shape
    error = (
        beyond_rounding(metric, found, expected) if found.dtype == np.float16 else np.abs(found - expected)
    )
    return float((error / np.maximum(np.abs(expected), floor)).max())


def errors_of(result: dict[str, Any], reading: FamilyReading, prompt: int, name: str) -> dict[str, float]:
    """Per metric the largest relative error over all layers and positions."""
    n = prompt + TOKENS - 1
    errors = {}
    for index, metric in enumerate(result["metrics"].tolist()):
        found = result["values"][:n, index]
        if metric in PARTS and (name in WITHOUT_PARTS or (name in MORE and np.isnan(found).all())):
            assert np.isnan(found).all(), f"{name} has parts"
            continue
        expected = reading.metrics[metric][:n]
        if metric.startswith("lens_"):
            assert np.isnan(found[: prompt - 1]).all(), f"{metric} speaks of the prompt"
            found, expected = found[prompt - 1 :], expected[prompt - 1 : n]
        if metric.startswith(("router_", "expert")):
            # Layers without experts have no number, here nor there.
            beside = np.isnan(expected)
            assert np.array_equal(np.isnan(found), beside), f"{metric} has no number somewhere"
            found = np.where(beside, np.float16(0), found)
            expected = np.where(beside, 0.0, expected)
        errors[metric] = worst(metric, found, expected, 1e-6 if metric in NO_FLOOR else FLOOR)
        assert np.isfinite(errors[metric]), f"{metric} has no number somewhere"
    errors["entropy"] = worst(
        "entropy", result["entropy"][prompt - 1 : n], reading.entropy[prompt - 1 : n], FLOOR
    )
    errors["surprisal"] = worst("surprisal", result["logprobs"], reading.logprobs[prompt - 1 : n], FLOOR)
    return errors


def readings(
    mine: Served,
    reference: FamilyReference,
    runs: Sequence[int] = range(len(PROMPTS)),
    strengths: Sequence[dict[str, float]] = STRENGTHS,
) -> Iterator[tuple[dict[str, Any], FamilyReading, list[int]]]:
    """Of each prompt what was served, what transformers says of the same tokens, and prompt and reply; `runs`
    are those of the prompts, and `strengths` what steered each."""
    directions = vectors()
    for run, prompt, steered in zip(runs, PROMPTS, strengths, strict=False):
        result = mine.result(run)
        ids = prompt + result["reply"].tolist()
        push = [(at, v, steered[n]) for n in steered for at, v in directions[n].items()]
        yield result, reference.read(ids, push, directions), ids


@pytest.mark.parametrize("name", FAMILIES)
def test_every_number_and_a_steered_reply_equal_transformers(
    name: str, family_process: FamilyProcess, record_testsuite_property: Callable[[str, object], None]
) -> None:
    mine = family_process.served(name)
    assert mine.failure is None, mine.failure
    largest: dict[str, float] = {}
    replies = []
    for index, (result, reading, ids) in enumerate(readings(mine, FamilyReference(str(mine.model)))):
        start = len(PROMPTS[index])
        mean = reading.entropy.mean()
        assert 0.1 < mean < 0.98 * np.log(reading.logits.shape[-1]), f"entropy {mean}: a test of nothing"
        for at in range(start, len(ids)):
            tie = reading.margin[at - 1] < 1e-3
            assert reading.best[at - 1] == ids[at] or tie, f"token {at} differs with {STRENGTHS[index]}"
            assert reading.ranks[at - 1] == result["ranks"][at - start] or tie
        for metric, error in errors_of(result, reading, start, name).items():
            largest[metric] = max(largest.get(metric, 0.0), error)
        check_top(result, reading)
        replies.append(result["reply"].tolist())
    record_testsuite_property(f"largest relative error, {name}", json.dumps(largest))
    assert all(error <= TOLERANCE for error in largest.values()), json.dumps(largest, indent=1)


def check_top(result: dict[str, Any], reading: FamilyReading) -> None:
    """The named tokens are the reference's, but for equals; the last layer's first is what was written."""
    logp = torch.log_softmax(torch.from_numpy(reading.logits), dim=-1).numpy()
    assert result["lens_layers"].tolist() == list(range(len(reading.logits)))
    assert np.array_equal(result["top_ids"][:, -1, 0], result["reply"])
    for row, position in enumerate(result["lens_positions"].tolist()):
        for layer in range(len(logp)):
            expected = np.exp(logp[layer, position][result["top_ids"][row, layer]])
            named = result["top_probabilities"][row, layer]
            assert np.allclose(named, expected, rtol=1.5e-3, atol=1e-5), f"{layer}: {named} for {expected}"
            best = np.sort(np.exp(logp[layer, position]))[::-1][:5]
            assert np.allclose(result["top_probabilities"][row, layer], best, rtol=1.5e-3, atol=1e-5)


def test_all_built_in_metrics_are_compared() -> None:
    assert {metric.id for metric in BUILT_IN} <= set(METRICS)
