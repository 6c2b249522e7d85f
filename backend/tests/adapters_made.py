"""LoRA adapters made with peft: random, and strong enough to change what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_adapter(model: str, folder: Path, *, seed: int, size: float, **config: Any) -> Path:
    """An adapter of a checkpoint.

    Args:
        model: folder of the checkpoint.
        folder: where the adapter goes.
        seed: of its weights.
        size: standard deviation of what B holds, where A passes on inputs of length 1 as such.
        config: fields of peft's LoraConfig.
    """
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(**{"target_modules": list(ALL), **config}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                spread = weight.shape[-1] ** -0.5 if "lora_A" in name else size
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
    adapted.save_pretrained(folder)
    return folder


def adapt(model: Any, folder: Path) -> None:
    """Put an adapter into a model of transformers, by peft and unmerged."""
    PeftModel.from_pretrained(model, folder).eval()
