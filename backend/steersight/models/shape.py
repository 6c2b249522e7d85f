"""What a decoder checkpoint's files say of its size: numbers, layers, heads, context.

Read off `config.json` and the headers of the weights, because transformers would say the same after seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, inspect

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number, by the types that an engine can be told to compute in."""

NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "context": ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length"),
}
"""What families call the same thing; transformers' configurations map them to the first."""
WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Ends of the names of architectures that write text."""


class NotADecoderError(ValueError):
    """A folder is no checkpoint of a decoder; the message is a sentence that says why."""


@dataclass(frozen=True)
class Shape:
    """One decoder."""

    parameters: int
    """Numbers in the weights."""
    dtype: str
    """What the weights are stored in, as torch calls it."""
    layers: int
    heads: int
    """Of attention: the number of GPUs has to divide it."""
    kv_heads: int
    head_size: int
    hidden: int
    context: int | None
    """The most tokens; None where positions have no limit."""
    stored: int = 0
    """Bytes of the weights as they are stored; 0 where that is not known."""
    quantised: str = ""
    """How the weights are quantised, in the word of the configuration; empty for not at all."""
    compressed_cache: bool = False
    """Whether the KV cache holds something else than keys and values, so that heads do not tell its size."""


def read_shape(folder: Path) -> tuple[Shape, Checkpoint]:
    """The shape of the model in a folder, and what its files say of themselves.

    Raises: NotADecoderError, with a sentence.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise NotADecoderError("Its config.json is missing or cannot be read.") from None
    if not isinstance(config, dict):
        raise NotADecoderError("Its config.json is no configuration of a model.")
    architectures = config.get("architectures") or []
    if config.get("is_encoder_decoder") or not any(str(one).endswith(WRITERS) for one in architectures):
        named = ", ".join(map(str, architectures)) or "none"
        raise NotADecoderError(f"It is no decoder (its architecture: {named}).")
    checkpoint = inspect(folder)
    return shape_of(config, checkpoint), checkpoint


def shape_of(config: dict[str, Any], checkpoint: Checkpoint) -> Shape:
    """The shape that a configuration describes.

    Args:
        config: as `config.json` has it, of the whole model.
        checkpoint: what its weights say.

    Raises: NotADecoderError where it leaves out what has to be known.
    """
    text = config.get("text_config")
    text = text if isinstance(text, dict) else config

    def number(*names: str) -> int | None:
        found = (text.get(name) for name in names)
        return next((one for one in found if isinstance(one, int) and not isinstance(one, bool)), None)

    layers, heads, hidden = (number(*NAMES[name]) for name in ("layers", "heads", "hidden"))
    if not layers or not hidden:
        raise NotADecoderError("Its config.json does not say how many layers it has, or how wide they are.")
    # A model of state-space layers alone has no heads of attention, and its cache is of another kind.
    heads = heads or 1
    stored = str(text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or "")
    stored = stored or str(config.get("torch_dtype") or checkpoint.dtype or "float32")
    return Shape(
        parameters=checkpoint.parameters,
        dtype=stored.removeprefix("torch."),
        layers=layers,
        heads=heads,
        kv_heads=number("num_key_value_heads") or (1 if text.get("multi_query") else heads),
        head_size=number("head_dim") or hidden // heads,
        hidden=hidden,
        context=number(*NAMES["context"]),
        stored=checkpoint.stored,
        quantised=checkpoint.quantised,
        compressed_cache=bool(number("kv_lora_rank")),
    )
