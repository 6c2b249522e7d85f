"""Two tensor-parallel ranks show and steer what one does; engines that would show less are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .family_process import METRICS, PROMPTS, FamilyProcess

pytestmark = pytest.mark.timeout(300)

FUNCTION = {"vector": "late_positions", "strength": 0.5, "operator": "function"}
WITH_FUNCTION: dict[str, dict[str, Any]] = {
    "Llama": {
        "functions": [str(Path(__file__).with_name("failing_intervention.py"))],
        "actions": [[], [{"vector": "v", "strength": 0.3}, FUNCTION]],
    }
}
"""What differs in a family's job: one of its prompts is steered by a function too, which each rank calls."""


EMITS = {"Llama": [0, 2]}
"""Family -> layers of which a block in each of its runs emits what leaves them (`steersight.live`)."""


@pytest.mark.parametrize("name", ["Llama", "Gemma3", "GPT-NeoX", "Mixtral", "Granite hybrid"])
def test_two_ranks_give_the_rows_and_tokens_of_one(name: str, family_process: FamilyProcess) -> None:
    """The logit lens among them: its product gathers the vocabulary's shards. A plain model, one with norms
    around its parts, one whose parts work side by side, one of experts, and one with state-space layers."""
    more = WITH_FUNCTION.get(name, {}) | ({"emits": EMITS[name]} if name in EMITS else {})
    one, two = family_process.served(name, **more), family_process.served(name, tensor_parallel=2, **more)
    assert (one.failure, two.failure) == (None, None)
    for index in range(len(PROMPTS)):
        alone, together = one.result(index), two.result(index)
        assert set(alone) == set(together)
        for what in ("reply", "ranks", "metrics", "lens_layers", "lens_positions", "alternative_positions"):
            assert np.array_equal(alone[what], together[what]), what
        for what in ("values", "entropy", "logprobs", "top_probabilities", "alternative_logprobs"):
            assert np.allclose(alone[what], together[what], rtol=2e-3, atol=1e-4, equal_nan=True), what
        if EMITS.get(name):
            # All ranks run the block, and each number comes once. `values` has the logarithm.
            emitted, norms = (
                together["emitted"],
                alone["values"][:, METRICS.index("residual_norm"), EMITS[name]],
            )
            assert np.allclose(emitted, alone["emitted"], rtol=2e-3)
            assert np.allclose(np.log2(emitted.astype(np.float32)), norms, atol=6e-3)
        if "functions" in more:
            share = together["values"][1:, METRICS.index("steering_share"), [1, -1]]
            assert (share > 0).all() if index else not share.any()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallelism would hide the rest"),
        ({"enable_prefix_caching": True}, "unless the scheduler is ours"),
    ],
)
def test_engines_in_which_rows_would_be_wrong_are_refused(
    arguments: dict[str, Any], why: str, family_process: FamilyProcess
) -> None:
    refused = family_process.served("Llama", engine=arguments)
    assert refused.failure is not None
    assert why in refused.said
