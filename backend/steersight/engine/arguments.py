"""vLLM's own engine arguments that are passed through: `--engine-arg NAME=VALUE`.

Only those that change nothing that the observer relies on: how weights are loaded, which kernels compute, how
large the cache is. What they come to is held against the assumptions all the same (`assumptions.py`), when
the engine is up. The others are refused in a sentence: with the option of ours that sets them, or with what
would go wrong. Names and meanings are those of vLLM 0.32. Pure: no vLLM.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

SAFE = frozenset(
    {
        # How the checkpoint is read.
        "load_format", "download_dir", "safetensors_load_strategy", "ignore_patterns", "code_revision",
        "model_loader_extra_config", "max_parallel_loading_workers", "use_tqdm_on_load",
        "allow_deprecated_quantization", "generation_config", "language_model_only", "model_impl",
        # How the KV cache is laid out.
        "kv_cache_dtype", "kv_cache_memory_bytes", "num_gpu_blocks_override", "disable_sliding_window",
        "disable_hybrid_kv_cache_manager", "mamba_cache_dtype", "mamba_ssm_cache_dtype", "mamba_cache_mode",
        # What computes, and where.
        "attention_backend", "attention_config", "moe_backend", "linear_backend", "mamba_backend",
        "kernel_config", "enable_flashinfer_autotune", "disable_cascade_attn", "enable_expert_parallel",
        "disable_custom_all_reduce", "device_ids", "numa_bind", "numa_bind_nodes", "numa_bind_cpus",
        "distributed_timeout_seconds", "seed",
    }
)  # fmt: skip
OURS = {
    "model": "--model", "model_weights": "--model", "revision": "--revision",
    "tokenizer_revision": "--revision", "trust_remote_code": "--trust-remote-code",
    "quantization": "--quantization", "dtype": "--dtype", "max_model_len": "--max-model-len",
    "max_num_seqs": "--max-runs", "tensor_parallel_size": "--tensor-parallel",
    "gpu_memory_utilization": "--gpu-memory", "distributed_executor_backend": "--executor",
    "enable_prefix_caching": "--prefix-caching", "max_num_batched_tokens": "--max-num-batched-tokens",
    "long_prefill_token_threshold": "--long-prefill-token-threshold", "block_size": "--block-size",
    "enforce_eager": "--engine-mode", "compilation_config": "--engine-mode",
    "cudagraph_capture_sizes": "--engine-mode", "max_cudagraph_capture_size": "--engine-mode",
}  # fmt: skip
"""Which option of ours sets an argument."""
_SPECULATIVE = (
    "With speculative decoding one pass computes positions that are then thrown away, and their rows would "
    "be shown. It is not supported until that is proved."
)
WRONG = {
    "speculative_config": _SPECULATIVE, "spec_method": _SPECULATIVE, "spec_model": _SPECULATIVE,
    "spec_tokens": _SPECULATIVE,
    "pipeline_parallel_size": "With pipeline parallelism one process sees only its own layers. Use "
    "--tensor-parallel.",
    "data_parallel_size": "With data parallelism sliders would reach only some of the engines. Start one "
    "server per engine behind the load balancer.",
    "enable_dbo": "With dual batch overlap a step is computed in two halves, and rows would mix.",
    "enable_eplb": "Where experts are moved and copied while the engine runs, their numbers are not those of "
    "the checkpoint.",
    "kv_transfer_config": "A KV cache that another engine has filled brings no rows.",
    "scheduler_cls": "Only Steersight's own scheduler knows what acted on the tokens that a cache holds.",
    "worker_cls": "The observer is in Steersight's own worker.",
    "hf_overrides": "Steersight reads the model's configuration too, and would know another one. Change the "
    "checkpoint's config.json.",
}  # fmt: skip
"""What would go wrong with an argument."""


def engine_arguments(text: str) -> tuple[tuple[str, Any], ...]:
    """`NAME=VALUE`, several on lines of their own; values are read as JSON where they are JSON, else as text.

    Raises: ValueError with a sentence for what cannot be passed through.
    """
    found = []
    for item in filter(None, (line.strip() for line in text.splitlines())):
        name, equals, value = (word.strip() for word in item.partition("="))
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not name.isidentifier():
            raise ValueError(f"{item!r} is not NAME=VALUE, such as kv_cache_dtype=fp8.")
        check_name(name)
        found.append((name, _value(value)))
    return tuple(found)


engine_arguments.repeats = True  # type: ignore[attr-defined]  # read by flags.py


def check_name(name: str) -> None:
    """Raises ValueError with a sentence where this argument of vLLM's is not passed through."""
    if name in SAFE:
        return
    if name in OURS:
        raise ValueError(f"{name} is set by {OURS[name]}.")
    if name in WRONG:
        raise ValueError(f"{name} cannot be passed through. {WRONG[name]}")
    near = difflib.get_close_matches(name, SAFE, n=1)
    meant = f" Is {near[0]} meant?" if near else ""
    raise ValueError(
        f"{name} is none of the arguments of vLLM that can be passed through.{meant} Those are "
        f"{', '.join(sorted(SAFE))}."
    )


def known_to(table: type, arguments: Iterable[tuple[str, Any]]) -> Mapping[str, Any]:
    """The arguments as a map, the last of each name.

    Args:
        table: vLLM's dataclass of its arguments.
        arguments: of `engine_arguments`.

    Raises: ValueError where this version of vLLM has no such argument.
    """
    names = {one.name for one in fields(table)}
    for name, _ in arguments:
        if name not in names:
            raise ValueError(f"The installed vLLM has no engine argument {name}. Leave it out.")
    return dict(arguments)


def speculative(text: str) -> str:
    """What `--speculative-config` is told: nothing, so far.

    Raises: ValueError where it is told anything.
    """
    if text:
        raise ValueError(_SPECULATIVE)
    return text


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
