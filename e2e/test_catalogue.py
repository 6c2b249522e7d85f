"""The demo of nnsight-vllm-demos in the page: a catalogue of features, brought, steered with, put away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect
from safetensors.numpy import save_file

from pages import SteersightPage
from server import ROOT

HIDDEN, LAYER, FEATURES = 576, 14, 64
MODEL = ROOT / "data/models/smollm2-135m-instruct"

pytestmark = pytest.mark.usefixtures("nothing_stays")


@pytest.fixture
def shakespeare(tmp_path: Path) -> bytes:
    """One feature of an autoencoder in Llama Scope's layout, taken out with its catalogue as people do."""
    scope = tmp_path / "scope"
    sae = scope / f"Tiny-Base-L{LAYER}R-8x"
    (sae / "checkpoints").mkdir(parents=True)
    hook = f"blocks.{LAYER}.hook_resid_post"
    facts = {
        "hook_point_in": hook, "hook_point_out": hook, "d_model": HIDDEN, "d_sae": FEATURES,
        "act_fn": "jumprelu", "jump_relu_threshold": 1.0, "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 17.0, "out": 17.0},
        "sparsity_include_decoder_norm": True, "apply_decoder_bias_to_pre_encoder": False,
    }  # fmt: skip
    (sae / "hyperparams.json").write_text(json.dumps(facts))
    random = np.random.default_rng(LAYER)
    shapes = {
        "encoder.weight": (FEATURES, HIDDEN), "encoder.bias": (FEATURES,),
        "decoder.weight": (HIDDEN, FEATURES), "decoder.bias": (HIDDEN,),
    }  # fmt: skip
    weights = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    save_file(weights, sae / "checkpoints" / "final.safetensors")
    entry = {"layer": LAYER, "position": "R", "expansion": "8x", "index": 41, "description": "Old words"}
    catalogue = scope / "features.json"
    catalogue.write_text(json.dumps({"shakespeare": entry}))
    data = tmp_path / "data"
    command = [
        str(Path(sys.executable).parent / "steersight"), "vectors", "import", str(scope),
        "--catalogue", str(catalogue), "--model", str(MODEL), "--data-dir", str(data),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = data.rglob("shakespeare.safetensors")
    return file.read_bytes()


def test_the_whole_demo(app: SteersightPage, shakespeare: bytes) -> None:
    app.be_greedy()
    plain = app.answer_to()
    app.new_chat()
    app.choose_file("shakespeare.safetensors", shakespeare)
    assert "shakespeare" in app.report()
    app.add_import()

    assert "shakespeare \u00b7 0 (-15 to 15) \u00b7 Old words" in app.command("/features")
    assert app.command("/steer shakespeare 8") == "shakespeare is at 8."
    assert app.command("/active").startswith("shakespeare \u00b7 8")
    steered = app.answer_to()
    assert app.wire.last_start().strengths == {"shakespeare": 8}
    assert steered != plain
    app.command("/clear")
    assert app.command("/active") == "Nothing is steered."
    expect(app.strength("shakespeare")).to_have_value("0")
    assert app.regenerate() == plain
