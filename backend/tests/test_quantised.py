"""Quantised checkpoints, held against the numbers that their weights stand for.

The twin in transformers computes in fp32, the engine in half precision, so the bounds are those of rounding:
a checkpoint that was read otherwise than it was meant is far outside of them, as its own original is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steersight.engine.loading import _cpu_dtype
from steersight.engine.options import EngineOptions

from .all_quantised import errors_against
from .family_process import FamilyProcess
from .family_reference import FamilyReference
from .quantised import FORMS, config, make_quantised

pytestmark = pytest.mark.timeout(300)
BOUNDS = {
    "tokens": 0.0,
    "residual_norm": 0.006,
    "update_norm": 0.02,
    "lens_probability": 0.05,
    "surprisal": 0.02,
}


@pytest.mark.parametrize("name", ["AWQ", "GPTQ, head too", "compressed-tensors, int8"])
def test_a_quantised_checkpoint_is_what_its_weights_stand_for(
    name: str, family_process: FamilyProcess, tmp_path: Path
) -> None:
    """Its unembedding among them, where that is quantised too."""
    form = FORMS[name]
    quantised, twin = make_quantised(form, tmp_path)
    served = family_process.serve(quantised, dtype="bfloat16")
    assert served.failure is None, served.failure
    found = errors_against(FamilyReference(str(twin), form.activations), served)
    assert all(found[metric] <= bound for metric, bound in BOUNDS.items()), found
    if "int8" not in name:
        original = errors_against(FamilyReference(str(tmp_path / "plain")), served)
        for metric in ("residual_norm", "update_norm"):
            assert original[metric] > 2 * BOUNDS[metric], "the bounds would let anything pass"


@pytest.mark.parametrize(
    ("form", "own", "chosen"),
    [
        ({}, "bfloat16", "float32"),
        (FORMS["AWQ"].config, "float16", "float16"),
        (FORMS["AWQ"].config, "float32", "bfloat16"),
        (FORMS["compressed-tensors, int8"].config, "bfloat16", "bfloat16"),
    ],
)
def test_a_cpu_computes_in_fp32_unless_weights_are_quantised(
    form: dict[str, Any], own: str, chosen: str, tmp_path: Path
) -> None:
    config().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | ({"quantization_config": form} if form else {}))
    )
    assert _cpu_dtype(EngineOptions(model=str(tmp_path)), own) == chosen
