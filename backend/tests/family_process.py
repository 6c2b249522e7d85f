"""The families' checkpoints, each made and served when a test first asks for it, all in one process.

What is served of a family is the same for all tests: two prompts, of which the second is steered by two
vectors, every metric and the logit lens at every layer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from steersight.engine.loading import experts_of
from steersight.metrics import Experts, Registry
from steersight.metrics.registry import for_experts
from steersight.vectors.operators import unit_rows

from .families import FAMILIES, HIDDEN, MORE, make_checkpoint

TOKENS = 24
PROMPTS = [list(range(10, 40)), list(range(50, 75))]
STRENGTHS: list[dict[str, float]] = [{}, {"v": 0.3, "w": -0.2}]
METRICS = [metric.id for metric in Registry([("v", "v"), ("w", "w")]).all()]
CORES = "0|1"
"""A core for each of two ranks; a single one has the first. vLLM reads it once for a process's life."""


def vectors() -> dict[str, dict[int, torch.Tensor]]:
    """Unit directions [hidden_size], by vector and layer."""
    generator = torch.Generator().manual_seed(3)
    rows = unit_rows(torch.randn(3, HIDDEN, generator=generator))
    return {"v": {1: rows[0]}, "w": {0: rows[1], 2: rows[2]}}


@dataclass
class Served:
    """What the engine wrote down of one checkpoint."""

    model: Path
    failure: str | None
    """What serving it raised."""
    said: str
    """The engine's log of it."""
    out: str

    def result(self, index: int) -> dict[str, Any]:
        """Of one prompt."""
        with np.load(f"{self.out}-{index}.npz") as stored:
            return dict(stored)


class FamilyProcess:
    """`tests.family_engine`, asked job by job; it starts with the first.

    Args:
        folder: where checkpoints, results and its log go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "engine.log"
        self._process: subprocess.Popen[str] | None = None
        self._served: dict[str, Served] = {}
        self._asked = 0

    def served(self, name: str, **more: Any) -> Served:
        """What serving this family gave, served once for all tests.

        Args:
            name: of the family.
            more: fields of the job, such as `tensor_parallel=2`.
        """
        key = json.dumps([name, more], sort_keys=True)
        if key not in self._served:
            all_of_them = FAMILIES | MORE
            model = self._folder / str(list(all_of_them).index(name))
            if not model.exists():
                make_checkpoint(all_of_them[name](), model)
            self._served[key] = self.serve(model, experts_of(all_of_them[name]()), **more)
        return self._served[key]

    def serve(self, model: Path, experts: Experts | None = None, **more: Any) -> Served:
        """What serving any checkpoint with a hidden size of `HIDDEN` gives; `more` as in `served`."""
        self._asked += 1
        out = str(self._folder / f"out-{self._asked}")
        failure, said = self._ask(self._job(model, out, experts) | more)
        return Served(model, failure, said, out)

    def _job(self, model: Path, out: str, experts: Experts | None) -> dict[str, Any]:
        directions = self._folder / "vectors.safetensors"
        if not directions.exists():
            flat = {f"{name}/{at}": v for name, own in vectors().items() for at, v in own.items()}
            save_file({name: v.contiguous() for name, v in flat.items()}, directions)
        return {
            "model": str(model), "out": out, "vectors": str(directions), "vector_names": list(vectors()),
            "actions": [[{"vector": n, "strength": s} for n, s in each.items()] for each in STRENGTHS],
            "prompts": PROMPTS, "tokens": TOKENS, "lens_stride": 1,
            "metrics": [*METRICS, *(metric.id for metric in for_experts(experts))] if experts else METRICS,
            "experts": None if experts is None else (experts.count, experts.chosen),
        }  # fmt: skip

    def _ask(self, job: dict[str, Any]) -> tuple[str | None, str]:
        """Run a job; what it failed of, if it did, and what the log says of it."""
        if self._process is None:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.family_engine"], cwd=Path(__file__).parents[1],
                    env=os.environ | {"VLLM_CPU_OMP_THREADS_BIND": CORES},
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = self._log.stat().st_size
        print(json.dumps(job), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        said = self._log.read_bytes()[before:].decode(errors="replace")
        assert answer, f"The engine's process ended with {self._process.wait()}:\n{said[-3000:]}"
        failure: str | None = json.loads(answer)["failure"]
        return failure, said

    def end(self) -> None:
        """No more jobs will come."""
        if self._process is not None:
            self._process.communicate(timeout=60)
