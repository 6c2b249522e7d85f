"""Clamp a probe's reading: whatever the model makes of a token, a linear probe finds no question in it.

    steersight serve --interventions backend/examples/interventions/clamp_probe.py \
                     --metrics backend/examples/metrics/linear_probe.py

The probe is that of the metric (`examples/metrics/linear_probe.py`), which shows what has become of its
reading. It reads a stream that is scaled to length 1, so the clamp turns the stream and leaves its length:
away from the probe's weight, until the reading is what it may be at most.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from steersight.interventions import Context, intervention

WEIGHTS = Path(__file__).parent.parent / "metrics" / "linear_probe.safetensors"
MOST = 0.0
"""The log odds of a question that the probe may find: 0 is as likely as not."""
_probe: dict[str, torch.Tensor] = {}


@intervention(layers=range(15, 30), suggested=1.0, per_token=True)
def no_question(hidden: torch.Tensor, context: Context, strength: float) -> torch.Tensor:
    """No question

    Where a linear probe would say that a token is part of a question, turns the stream away from the probe's
    weight until the probe is undecided. Strength 1 does so fully, 0.5 half way. All other tokens are left as
    they are.
    """
    if not _probe:
        _probe.update({name: tensor.to(context.device) for name, tensor in load_file(WEIGHTS).items()})
    if _probe["weight"].shape != (context.layers, hidden.shape[1]):
        raise ValueError(f"The probe is for another model: its weights are {list(_probe['weight'].shape)}.")
    weight, bias = _probe["weight"][context.layer], _probe["bias"][context.layer]
    most = ((MOST - bias) / weight.norm()).clamp(-1.0, 1.0)
    length = hidden.norm(dim=-1, keepdim=True)
    towards = weight / weight.norm()
    along = (hidden / length @ towards)[:, None]
    aside = torch.nn.functional.normalize(hidden / length - along * towards, dim=-1)
    turned = (along + strength * (most - along)).clamp(-1.0, 1.0)
    new = length * (turned * towards + (1 - turned.square()).sqrt() * aside)
    return torch.where(along > most, new, hidden)
