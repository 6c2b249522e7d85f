"""Runs the Triton kernel in Triton's interpreter beside its plain form; started by `test_kernel_text.py`.

In a process of its own: Triton looks at TRITON_INTERPRET when it is imported.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch

from steersight.engine.graph import GraphPass
from steersight.engine.kernel import fused
from steersight.engine.kernel_reference import NUMBERS, fused_reference
from steersight.vectors.action import Action
from steersight.vectors.store import OPERATORS

from .test_finite import BANK, DTYPES, SIZE, layout, stream_of

TRIALS = 120
STEPS = {torch.float16: 2**-9, torch.bfloat16: 2**-6, torch.float32: 1e-4}
"""How far the two may be apart, as a share of the row's largest number: a rounding or two."""


def drawn(chance: random.Random) -> list[Action]:
    """What acts on one row."""
    row = []
    for vector in chance.sample("abfxy", chance.randint(0, 5)):
        operator = chance.choice(OPERATORS if vector in "fy" else OPERATORS[:4])
        strength = chance.choice([1000.0, -1000.0, 0.3, -0.7])
        lo, hi = chance.choice([-math.inf, -0.1]), chance.choice([0.1, math.inf])
        row.append(Action(vector, strength, operator, lo=lo, hi=hi))
    return row


def main() -> None:
    """Raise AssertionError where the two differ, or a number is not finite."""
    chance = random.Random(0)
    for trial in range(TRIALS):
        dtype = DTYPES[trial % len(DTYPES)]
        scale = chance.choice([0.0, 1e-4, 1.0, 300.0, 2e4])
        hidden = stream_of(scale / 2, dtype, trial)
        residual = stream_of(scale / 2, dtype, trial + TRIALS) if trial % 2 else None
        below = stream_of(scale, torch.float32, trial + 2 * TRIALS)
        acting = [BANK.composed(drawn(chance)) for _ in range(3)]
        graph = GraphPass(layout(), BANK, rows=3, hidden_size=SIZE, device=torch.device("cpu"))
        graph.upload(acting)
        results = []
        for way in (fused_reference, fused):
            changed, stream = hidden.clone(), torch.empty(3, SIZE)
            with np.errstate(all="ignore"):
                way(
                    changed, residual, below, BANK.pool, 1, graph.acting.entries, graph.acting.counts,
                    torch.empty(3, SIZE), stream, torch.empty(3, len(NUMBERS)),
                )  # fmt: skip
            results.append((changed.float(), stream))
        (plain, plain_stream), (found, found_stream) = results
        told = f"trial {trial}, {dtype}, scale {scale:g}: {acting}"
        assert found.isfinite().all(), told
        assert found_stream.isfinite().all(), told
        most = plain.abs().amax(dim=-1, keepdim=True).clamp_min(1e-30)
        assert ((found - plain).abs() / most).max() <= STEPS[dtype], told
        assert ((found_stream - plain_stream).abs() / most).max() <= STEPS[dtype], told
        free = [row for row, mine in enumerate(acting) if not mine]
        assert torch.equal(found[free], hidden[free].float()), told
    print(f"{TRIALS} trials agree")  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()
