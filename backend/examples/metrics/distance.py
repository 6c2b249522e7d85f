"""Distance to a reference activation: how far a reply has gone from the mean of its own prompt.

Two numbers from one function, as declared fields; and a memory per run, which the function keeps by itself.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from steersight.metrics import Scale, View
from steersight.metrics.own import metric

REMEMBERED = 256
references: OrderedDict[tuple[str, int], torch.Tensor] = OrderedDict()
"""(run, layer) -> [hidden_size]: the mean of the run's first step, which is its prompt."""


@metric(
    id="from_prompt",
    label="From the prompt",
    description="How the stream differs from its mean over the prompt.",
    scale=Scale("sequential", lo=0.0),
    fields={"distance": "distance, in lengths of the mean", "angle": "angle, in radians"},
)
def from_prompt(residuals: torch.Tensor, context: View) -> dict[str, torch.Tensor]:
    """||h - m|| / ||m|| and the angle between h and m, where m is the mean stream of the run's prompt."""
    means = torch.empty_like(residuals)
    offset = 0
    for run, _, count in context.runs:
        mine = residuals[:, offset : offset + count]
        for layer in range(context.count):
            key = (run, context.first + layer)
            if key not in references:
                references[key] = mine[layer].mean(dim=0)
                if len(references) > REMEMBERED * 100:
                    references.popitem(last=False)
            means[layer, offset : offset + count] = references[key]
        offset += count
    distance = (residuals - means).norm(dim=-1) / means.norm(dim=-1).clamp_min(1e-30)
    angle = torch.cosine_similarity(residuals, means, dim=-1).clamp(-1, 1).arccos()
    return {"distance": distance, "angle": angle}
