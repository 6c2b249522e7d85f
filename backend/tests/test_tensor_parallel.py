"""Two tensor-parallel ranks show and steer what one does; engines that would show less are refused."""

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
                assert np.allclose(alone[name], together[name], rtol=2e-3, atol=1e-4, equal_nan=True), name


def test_engines_in_which_rows_would_be_wrong_are_refused(checkpoint: Path) -> None:
    vectors = save_test_vectors(checkpoint)
    arguments: dict[str, dict[str, object]] = {
        "pipeline parallelism would hide the rest": {"pipeline_parallel_size": 2},
        "With prefix caching positions": {"enable_prefix_caching": True},
        "With chunked prefill each piece": {"enable_chunked_prefill": True},
    }
    jobs = []
    for index, more in enumerate(arguments.values()):
        jobs.append({**job(checkpoint / "model", checkpoint / f"refused-{index}", vectors), "engine": more})
    failures = run_jobs(jobs, checkpoint, {"VLLM_CPU_OMP_THREADS_BIND": "0|1"})
    assert set(failures) == {one["out"] for one in jobs}
    log = (checkpoint / "engine.log").read_text()
    assert [why for why in arguments if why not in log] == []
