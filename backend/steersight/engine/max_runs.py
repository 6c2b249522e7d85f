"""How many runs an engine computes at once where nobody has said so.

The number has to be known before the engine is built: vLLM records its CUDA graphs up to it. On a GPU it is
what the KV cache will have room for. It may be generous, because runs for whose tokens there is no room wait
in line (`runs/places.py`); but each costs a little memory, and one that is too small leaves a large GPU idle.
"""

from __future__ import annotations

import logging
from typing import Any

from .options import EngineOptions

logger = logging.getLogger(__name__)

USUAL = 64
"""On a CPU, and where a model's or a device's numbers are not known."""
MOST = 256
"""Tried on an H200 with an 8B model. More are for whoever has tried them."""
LEAST = 8
TOKENS_OF_A_RUN = 512
"""Prompt and reply of a usual question. Conversations grow longer, and not all are written at once."""
SET_ASIDE = 3 << 30
"""Bytes of each device for what is neither weights nor KV cache: vectors (512 MiB), the observer's numbers of
a recorded step (up to 1 GiB), the activations of the largest prompt, and the graphs."""


def fitting(device: int, weights: int, of_token: int, max_model_len: int) -> int:
    """How many runs a GPU has room for: a multiple of 8, as graphs are recorded, from `LEAST` to `MOST`.

    Args:
        device: bytes of one device that the engine may take.
        weights: bytes of the model's weights on it.
        of_token: bytes of the KV cache on it that one token takes.
        max_model_len: the most tokens of one run.
    """
    tokens = max(0, device - weights - SET_ASIDE) // of_token
    runs = tokens // min(TOKENS_OF_A_RUN, max_model_len)
    return max(LEAST, min(MOST, runs) // 8 * 8)


def bytes_of_token(config: Any, itemsize: int, ranks: int) -> int:
    """Bytes of the KV cache that one token takes on one device.

    Layers with a window, which keep less, are counted in full.

    Args:
        config: of the model's text part, as transformers has it.
        itemsize: bytes of one number in the cache.
        ranks: tensor-parallel ranks. Each has its share of the heads, and at least one.

    Raises:
        ValueError: with a sentence, where attention is of a kind whose cache this does not describe.
    """
    if getattr(config, "kv_lora_rank", None):
        raise ValueError("The model's KV cache is compressed.")
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * max(1, heads // ranks) * size * itemsize)


def bytes_of_weights(config: Any, itemsize: int, ranks: int) -> int:
    """Bytes of the weights on one device, counted on a model without any.

    Args:
        config: of the model, as transformers has it.
        itemsize: bytes of one number.
        ranks: tensor-parallel ranks, which share them out.

    Raises:
        ValueError: with a sentence, where they are quantised, which says little of their size.
    """
    if getattr(config, "quantization_config", None):
        raise ValueError("The model is quantised.")
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    numbers: int = sum(weight.numel() for weight in model.parameters())
    return numbers * itemsize // ranks


def chosen(options: EngineOptions, dtype: str, max_model_len: int) -> int:
    """How many runs the engine is to compute at once; the log says so where nobody else has.

    Args:
        options: how it is started.
        dtype: of its weights, as torch calls it.
        max_model_len: tokens of prompt and reply together, at most.
    """
    if options.max_runs is not None:
        return options.max_runs
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return USUAL
    try:
        import torch
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(options.model, **options.pretrained)
        itemsize, ranks = getattr(torch, dtype).itemsize, options.tensor_parallel
        runs = fitting(
            int(options.gpu_memory * current_platform.get_device_total_memory()),
            bytes_of_weights(config, itemsize, ranks),
            bytes_of_token(config.get_text_config(), itemsize, ranks),
            max_model_len,
        )
    except Exception as error:
        # Whatever a configuration lacks: a number that is known to work is better than no engine.
        logger.warning(
            "How many runs the GPU has room for cannot be told (%s) Up to %d are computed at once; "
            "--max-runs chooses.",
            error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}.",
            USUAL,
        )
        return USUAL
    logger.info("Up to %d runs are computed at once: what the GPU has room for.", runs)
    return runs
