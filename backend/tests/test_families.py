"""Every metric and one steered reply of every model family, held against transformers in fp32.

One process serves all checkpoints in turn (tests/family_engine.py); what it wrote down is compared here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steersight.metrics import BUILT_IN, Registry
from steersight.vectors.operators import unit_rows

from .families import FAMILIES, HIDDEN, make_checkpoint
from .family_reference import FamilyReading, FamilyReference
from .taken import beyond_rounding

TOKENS = 24
PROMPTS = [list(range(10, 40)), list(range(50, 75))]
STRENGTHS: list[dict[str, float]] = [{}, {"v": 0.3, "w": -0.2}]
REGISTRY = Registry([("v", "v"), ("w", "w")])
METRICS = [metric.id for metric in REGISTRY.all()]
TOLERANCE = 1e-3
# Where a number crosses zero, or nears it, a relative error means nothing: below this size it is held
# absolute.
FLOOR = 0.05
NO_FLOOR = {"residual_norm", "update_norm", "attention_norm", "mlp_norm"}
NOT_A_SUM = "OPT, norms after"
"""Its layers normalise the stream itself, so attention's part is not something that is added."""


def test_vectors() -> dict[str, dict[int, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    rows = unit_rows(torch.randn(3, HIDDEN, generator=generator))
    return {"v": {1: rows[0]}, "w": {0: rows[1], 2: rows[2]}}


test_vectors.__test__ = False  # type: ignore[attr-defined]


@dataclass
class Served:
    """What the engine wrote down of one family."""

    folder: Path
    failure: str | None
    prefix: str

    def result(self, index: int) -> dict[str, Any]:
        with np.load(f"{self.prefix}-{index}.npz") as stored:
            return dict(stored)


def run_jobs(
    jobs: list[dict[str, Any]], folder: Path, environment: dict[str, str] | None = None
) -> dict[str, str]:
    """Serve these in one process of their own; returns the failures, by `out`."""
    import os

    listed = folder / "jobs.json"
    listed.write_text(json.dumps(jobs))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tests.family_engine", str(listed)],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=500, check=False,
        env=os.environ | (environment or {}),
    )  # fmt: skip
    (folder / "engine.log").write_text(done.stdout + done.stderr)
    report = listed.with_suffix(".failures.json")
    assert report.is_file(), f"The engine's process ended with {done.returncode}:\n{done.stderr[-3000:]}"
    failures: dict[str, str] = json.loads(report.read_text())
    return failures


def job(model: Path, out: Path, vectors: Path, **more: Any) -> dict[str, Any]:
    return {
        "model": str(model), "out": str(out), "vectors": str(vectors), "vector_names": ["v", "w"],
        "actions": [[{"vector": n, "strength": s} for n, s in each.items()] for each in STRENGTHS],
        "prompts": PROMPTS, "tokens": TOKENS, "metrics": METRICS, "lens_stride": 1,
    } | more  # fmt: skip


def save_test_vectors(folder: Path) -> Path:
    path = folder / "vectors.safetensors"
    save_file(
        {f"{n}/{at}": v.contiguous() for n, own in test_vectors().items() for at, v in own.items()}, path
    )
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    folder = tmp_path_factory.mktemp("families")
    vectors = save_test_vectors(folder)
    jobs = []
    for index, config in enumerate(FAMILIES.values()):
        make_checkpoint(config(), folder / str(index))
        jobs.append(job(folder / str(index), folder / f"{index}-out", vectors))
    failures = run_jobs(jobs, folder)
    return {
        name: Served(folder / str(index), failures.get(jobs[index]["out"]), jobs[index]["out"])
        for index, name in enumerate(FAMILIES)
    }


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
        found, expected = result["values"][:n, index], reading.metrics[metric][:n]
        if metric.startswith("lens_"):
            assert np.isnan(found[: prompt - 1]).all(), f"{metric} speaks of the prompt"
            found, expected = found[prompt - 1 :], expected[prompt - 1 : n]
        if name == NOT_A_SUM and metric in ("attention_norm", "mlp_norm", "attention_share"):
            assert np.isnan(found).all()
            continue
        errors[metric] = worst(metric, found, expected, 1e-6 if metric in NO_FLOOR else FLOOR)
    errors["entropy"] = worst(
        "entropy", result["entropy"][prompt - 1 : n], reading.entropy[prompt - 1 : n], FLOOR
    )
    errors["surprisal"] = worst("surprisal", result["logprobs"], reading.logprobs[prompt - 1 : n], FLOOR)
    return errors


@pytest.mark.parametrize("name", FAMILIES)
def test_every_number_and_a_steered_reply_equal_transformers(
    name: str, served: dict[str, Served], record_testsuite_property: Callable[[str, object], None]
) -> None:
    mine = served[name]
    assert mine.failure is None, mine.failure
    reference = FamilyReference(str(mine.folder))
    vectors = test_vectors()
    largest: dict[str, float] = {}
    replies = []
    for index, strengths in enumerate(STRENGTHS):
        result = mine.result(index)
        ids = PROMPTS[index] + result["reply"].tolist()
        push = [(at, v, strengths[n]) for n in strengths for at, v in vectors[n].items()]
        reading = reference.read(ids, push, vectors)
        start = len(PROMPTS[index])
        mean = reading.entropy.mean()
        assert 0.1 < mean < 0.98 * np.log(reading.logits.shape[-1]), f"entropy {mean}: a test of nothing"
        for at in range(start, len(ids)):
            tie = reading.margin[at - 1] < 1e-3
            assert reading.best[at - 1] == ids[at] or tie, f"token {at} differs with {strengths}"
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
            assert np.allclose(result["top_probabilities"][row, layer], expected, rtol=1.5e-3, atol=1e-5)
            best = np.sort(np.exp(logp[layer, position]))[::-1][:5]
            assert np.allclose(result["top_probabilities"][row, layer], best, rtol=1.5e-3, atol=1e-5)


def test_all_built_in_metrics_are_compared() -> None:
    assert {metric.id for metric in BUILT_IN} <= set(METRICS)
