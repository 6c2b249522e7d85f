"""How an engine is to be started, and what is known of the model it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CONFIG_KEY = "steersight"
"""Under this key of vLLM's `additional_config` the worker finds what it has to know."""


@dataclass(frozen=True)
class EngineOptions:
    """How to start the engine."""

    model: str
    """Path of a checkpoint folder, or a name the Hugging Face hub knows."""
    data_dir: Path
    dtype: str = "auto"
    """`auto` is float32 on a CPU and the checkpoint's own type on CUDA."""
    max_model_len: int = 4096
    max_runs: int = 64
    tensor_parallel: int = 1
    kv_cache_gib: int = 1
    """Size of the KV cache on a CPU."""
    gpu_memory: float = 0.9
    """Share of each GPU's memory for weights and KV cache."""
    metrics: tuple[str, ...] = ()
    """Python files with metrics of one's own."""
    layout: str = ""
    """Where the decoder layers are, for a model that Steersight does not know; see engine/layout.py."""
    chat_template: str = ""
    """File of a chat template to take instead of the model's own; empty is the model's own, if it has one."""
    mode: str = "auto"
    """`graphs` decodes in CUDA graphs, `eager` does not; `auto` is graphs on CUDA."""
    executor: str = "auto"
    """vLLM's way to run its ranks: `mp` (processes), `ray` (other machines too), `auto` (vLLM chooses)."""
    stall_seconds: float = 60.0
    """An engine that owes an answer and gives no sign of life for so long counts as hung and is started
    again. A long prompt on a big model and a CPU can truly take tens of seconds."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of the served model."""

    id: str
    layers: int
    hidden_size: int
    vocab_size: int
    dtype: str
    max_model_len: int
    special_ids: list[int]
    chat: Literal["template", "file", "none"] = "template"
    """What makes a prompt of a conversation; see `ModelInfo.chat`."""
