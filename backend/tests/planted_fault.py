"""Own metrics that break the steering of the worker that loads them, where a run has one certain strength.

The server reads such a file too, and must not be broken by it: only a process that vLLM has spawned is.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch

from steersight.engine.eager import EagerPass
from steersight.engine.steering import Steering
from steersight.metrics import View
from steersight.metrics.own import metric

PLANTED = 0.625
"""A strength that fp32 holds exactly."""

if multiprocessing.parent_process() is not None:
    push = EagerPass._push

    def broken(self: EagerPass, hidden: Any, residual: Any, steering: Steering) -> None:
        if any(bool((column.strength == PLANTED).any()) for column in steering.columns):
            raise ZeroDivisionError("a planted fault")
        push(self, hidden, residual, steering)

    EagerPass._push = broken  # type: ignore[method-assign]


@metric(id="breaks", label="Breaks", description="Raises at once.")
def breaks(residuals: torch.Tensor, context: View) -> torch.Tensor:
    raise ZeroDivisionError("it fell apart")
