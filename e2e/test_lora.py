"""Somebody serves a model with a LoRA adapter, and chooses per reply which of the two writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from playwright.sync_api import expect
from transformers import AutoModelForCausalLM

from conftest import serving
from pages import SteersightPage
from server import ROOT, OwnServer


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one of the bundled model, that changes what is written."""
    model = os.environ.get("STEERSIGHT_MODEL_DIR", str(ROOT / "data/models/smollm2-135m-instruct"))
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                spread = weight.shape[-1] ** -0.5 if "lora_A" in name else 0.05
                weight.copy_(spread * torch.randn(weight.shape, generator=generator))
    folder = tmp_path_factory.mktemp("adapter") / "poet"
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(pytestconfig: pytest.Config, delete_output_dir: None, adapter: Path) -> Iterator[OwnServer]:
    """In place of the server of all stories: it serves the adapter too."""
    with serving(
        pytestconfig, "server-lora.log", "--lora", f"poet={adapter}", "--max-model-len", "1024"
    ) as own:
        yield own


def test_each_reply_is_written_with_what_was_chosen_and_says_so(app: SteersightPage) -> None:
    app.be_greedy(tokens=12)
    plain = app.answer_to()
    expect(app.writer).to_have_text("Base model")

    app.choose_adapter("poet")
    adapted = app.regenerate()
    expect(app.writer).to_have_text("Adapter poet")
    assert adapted != plain
    assert app.wire.last_started().adapter == "poet"

    # Another tab that watches it, and this one after a reload, say so too.
    expect(app.watch_in_another_tab().writer).to_have_text("Adapter poet")
    app.reload()
    expect(app.writer).to_have_text("Adapter poet")
    app.wait_until_ready()

    app.choose_adapter("")
    assert app.regenerate() == plain
    expect(app.writer).to_have_text("Base model")
