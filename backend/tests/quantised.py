"""Tiny quantised checkpoints in the forms that people publish, each beside what it is dequantised.

Made here, bit by bit, and not by the libraries that read them. The dequantised twin is an ordinary fp32
checkpoint whose weights are exactly the numbers that the quantised one stands for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from .families import HIDDEN, LAYERS, VOCAB, make_checkpoint

GROUP = 64
BLOCK = 128
E4M3 = torch.float8_e4m3fn
Tensors = dict[str, torch.Tensor]
Weight = Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor]]
"""Takes a linear layer's name and its weight [out, in]; gives the tensors of the checkpoint, and what they
stand for, [out, in] fp32."""
Activations = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Form:
    """One way to quantise."""

    config: dict[str, Any]
    """`quantization_config` of config.json; empty where vLLM quantises as it loads."""
    weight: Weight | None
    activations: Activations | None = None
    """What a linear layer makes of its input, where that is quantised too."""
    head: bool = False
    """Whether the unembedding is quantised as well."""
    arguments: tuple[tuple[str, Any], ...] = ()
    """Of vLLM's engine."""


def config() -> transformers.PreTrainedConfig:
    """Wide enough for every kernel's tiles."""
    return transformers.LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=256, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=4, head_dim=32, vocab_size=VOCAB, max_position_embeddings=256, bos_token_id=0,
        eos_token_id=1, pad_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip


# ------------------------------------------------------------------ whole numbers of four bits


def _groups(weight: torch.Tensor) -> torch.Tensor:
    return weight.view(len(weight), -1, GROUP)


def _packed(numbers: torch.Tensor, order: list[int]) -> torch.Tensor:
    """Eight numbers of 0 to 15 of the last axis into one int32; `order` says which comes lowest."""
    eights = numbers.long().view(*numbers.shape[:-1], -1, 8)
    words = sum(eights[..., which] << (4 * at) for at, which in enumerate(order))
    assert isinstance(words, torch.Tensor)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def awq(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Groups with a zero of their own, packed along the outputs in AWQ's interleaved order."""
    groups = _groups(weight)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 15).half().float()
    zero = (-low / scale).round().clamp(0, 15)
    numbers = ((groups / scale).round() + zero).clamp(0, 15)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    return {
        f"{name}.qweight": _packed(numbers.view_as(weight).T.contiguous(), order),
        f"{name}.qzeros": _packed(zero[..., 0].T.contiguous(), order),
        f"{name}.scales": scale[..., 0].T.contiguous().half(),
    }, ((numbers - zero) * scale).view_as(weight)


def _around_zero(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of -8 to 7 in groups, and the groups' scales."""
    groups = _groups(weight)
    scale = (groups.abs().amax(-1, keepdim=True) / 7).half().float()
    return (groups / scale).round().clamp(-8, 7), scale


def gptq(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Groups around zero, packed along the inputs."""
    numbers, scale = _around_zero(weight)
    outputs, inputs = weight.shape
    straight = list(range(8))
    return {
        f"{name}.qweight": _packed((numbers + 8).view_as(weight), straight).T.contiguous(),
        # GPTQ keeps zeros less one.
        f"{name}.qzeros": _packed(torch.full((inputs // GROUP, outputs), 7), straight),
        f"{name}.scales": scale[..., 0].T.contiguous().half(),
        f"{name}.g_idx": torch.arange(inputs, dtype=torch.int32) // GROUP,
    }, (numbers * scale).view_as(weight)


def packed(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """compressed-tensors' `pack-quantized`."""
    numbers, scale = _around_zero(weight)
    return {
        f"{name}.weight_packed": _packed((numbers + 8).view_as(weight), list(range(8))),
        f"{name}.weight_scale": scale[..., 0].contiguous().bfloat16(),
        f"{name}.weight_shape": torch.tensor(weight.shape),
    }, (numbers * scale.bfloat16().float()).view_as(weight)


# ------------------------------------------------------------------ eight bits


def fp8_tensor(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """One scale for the whole weight."""
    scale = weight.abs().amax() / 448
    numbers = (weight / scale).to(E4M3)
    return {f"{name}.weight": numbers, f"{name}.weight_scale": scale}, numbers.float() * scale


def fp8_block(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """A scale for each block of 128 by 128, as DeepSeek and Qwen publish."""
    outputs, inputs = weight.shape
    blocks = weight.view(outputs // BLOCK, BLOCK, inputs // BLOCK, BLOCK)
    scale = blocks.abs().amax(dim=(1, 3), keepdim=True) / 448
    numbers = (blocks / scale).to(E4M3)
    return {
        f"{name}.weight": numbers.view(outputs, inputs),
        f"{name}.weight_scale_inv": scale[:, 0, :, 0].contiguous(),
    }, (numbers.float() * scale).view(outputs, inputs)


def fp8_channel(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """A scale for each output."""
    scale = (weight.abs().amax(-1, keepdim=True) / 448).bfloat16().float()
    numbers = (weight / scale).clamp(-448, 448).to(E4M3)
    return {f"{name}.weight": numbers, f"{name}.weight_scale": scale.bfloat16()}, numbers.float() * scale


def int8_channel(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """A scale for each output."""
    scale = (weight.abs().amax(-1, keepdim=True) / 127).bfloat16().float()
    numbers = (weight / scale).round().clamp(-128, 127)
    return {
        f"{name}.weight": numbers.to(torch.int8), f"{name}.weight_scale": scale.bfloat16()
    }, numbers * scale  # fmt: skip


def fp8_tokens(stream: torch.Tensor) -> torch.Tensor:
    """Each token's input with a scale of its own."""
    scale = stream.abs().amax(-1, keepdim=True).clamp_min(1e-10) / 448
    return (stream / scale).to(E4M3).float() * scale


def fp8_runs(stream: torch.Tensor) -> torch.Tensor:
    """128 neighbouring numbers of each token's input with a scale of their own."""
    return fp8_tokens(stream.unflatten(-1, (-1, BLOCK))).flatten(-2)


def int8_tokens(stream: torch.Tensor) -> torch.Tensor:
    scale = stream.abs().amax(-1, keepdim=True).clamp_min(1e-10) / 127
    return (stream / scale).round().clamp(-128, 127) * scale


def _compressed(form: str, weights: dict[str, Any], inputs: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"],
        "quantization_status": "compressed", "config_groups": {"group_0": group},
    }  # fmt: skip


def _eight(kind: str) -> dict[str, Any]:
    same = {"num_bits": 8, "type": kind, "symmetric": True}
    return _compressed(
        f"{kind}-quantized", {**same, "strategy": "channel", "dynamic": False},
        {**same, "strategy": "token", "dynamic": True},
    )  # fmt: skip


_gptq = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False}
FORMS = {
    "AWQ": Form(
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}, awq
    ),
    "GPTQ": Form({**_gptq, "lm_head": False}, gptq),
    "GPTQ, head too": Form({**_gptq, "lm_head": True}, gptq, head=True),
    "compressed-tensors, int4": Form(
        _compressed(
            "pack-quantized",
            {
                "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP,
                "dynamic": False,
            },
            None,
        ),
        packed,
    ),
    "compressed-tensors, int8": Form(_eight("int"), int8_channel, int8_tokens),
    "compressed-tensors, FP8": Form(_eight("float"), fp8_channel, fp8_tokens),
    "FP8": Form({"quant_method": "fp8", "activation_scheme": "dynamic"}, fp8_tensor, fp8_tokens),
    "FP8, in blocks": Form(
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]},
        fp8_block, fp8_runs,
    ),
    "FP8, as it is loaded": Form({}, None, fp8_tokens, arguments=(("quantization", "fp8"),)),
}  # fmt: skip


def make_quantised(form: Form, folder: Path) -> tuple[Path, Path]:
    """Write a quantised checkpoint and its dequantised twin; their folders."""
    plain, quantised, twin = (folder / name for name in ("plain", "quantised", "twin"))
    make_checkpoint(config(), plain)
    shutil.copytree(plain, twin)
    shutil.copytree(plain, quantised)
    weights = load_file(plain / "model.safetensors")
    written: Tensors = {}
    for name, weight in list(weights.items()):
        linear = name.removesuffix(".weight")
        if weight.dim() != 2 or "embed" in name or (linear == "lm_head" and not form.head):
            # What stays as it is, is kept as the engine computes with it.
            weights[name] = weight.bfloat16().float()
            written[name] = weight.bfloat16()
        elif form.weight is None:
            weights[name] = fp8_tensor(linear, weight.bfloat16().float())[1]
            written[name] = weight.bfloat16()
        else:
            tensors, weights[name] = form.weight(linear, weight)
            written |= tensors
    if "awq" in str(form.config) or "gptq" in str(form.config):
        written = {name: one.half() if one.is_floating_point() else one for name, one in written.items()}
    save_file(
        {name: one.contiguous() for name, one in written.items()},
        quantised / "model.safetensors",
        {"format": "pt"},
    )
    save_file(weights, twin / "model.safetensors", {"format": "pt"})
    file = quantised / "config.json"
    told = json.loads(file.read_text())
    told |= {"dtype": "float16" if "awq" in str(form.config) or "gptq" in str(form.config) else "bfloat16"}
    file.write_text(json.dumps(told | ({"quantization_config": form.config} if form.config else {})))
    return quantised, twin
