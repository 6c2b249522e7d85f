"""Two tensor-parallel ranks show and steer what one does; pipeline parallelism is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .families import FAMILIES, make_checkpoint
from .test_families import job, run_jobs, save_test_vectors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    make_checkpoint(FAMILIES["Llama"](), folder / "model")
    return folder


def test_two_ranks_give_the_rows_and_tokens_of_one(checkpoint: Path) -> None:
    """The logit lens among them: its product gathers the vocabulary's shards."""
    vectors = save_test_vectors(checkpoint)
    one = job(checkpoint / "model", checkpoint / "one", vectors)
    two = job(checkpoint / "model", checkpoint / "two", vectors, tensor_parallel=2)
    assert run_jobs([one], checkpoint) == {}
    assert run_jobs([two], checkpoint, {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}) == {}
    for index in range(len(one["actions"])):
        with np.load(f"{one['out']}-{index}.npz") as alone, np.load(f"{two['out']}-{index}.npz") as together:
            assert set(alone) == set(together)
            for name in ("reply", "ranks", "metrics", "lens_layers", "lens_positions"):
                assert np.array_equal(alone[name], together[name]), name
            for name in ("values", "entropy", "logprobs", "top_probabilities"):
                assert np.allclose(alone[name], together[name], rtol=1e-3, atol=1e-4, equal_nan=True), name


def test_pipeline_parallelism_is_refused(checkpoint: Path) -> None:
    asked = job(checkpoint / "model", checkpoint / "pipe", save_test_vectors(checkpoint))
    asked["engine"] = {"pipeline_parallel_size": 2}
    failures = run_jobs([asked], checkpoint, {"VLLM_CPU_OMP_THREADS_BIND": "0|1"})
    assert set(failures) == {asked["out"]}
    assert "pipeline parallelism would hide the rest" in (checkpoint / "engine.log").read_text()
