"""Metrics that misbehave, each in its way; the test server serves them."""

from __future__ import annotations

import torch

from steersight.metrics import View
from steersight.metrics.own import metric


@metric(id="raises", label="Raises", description="Raises at its second call.")
def raises(residuals: torch.Tensor, context: View) -> torch.Tensor:
    if context.runs[0][1] > 0:
        raise ZeroDivisionError("the probe fell apart")
    return residuals.mean(dim=-1)


@metric(id="misshapen", label="Misshapen", description="Gives the wrong shape.")
def misshapen(residuals: torch.Tensor, context: View) -> torch.Tensor:
    return residuals.mean()
