"""A model and a cache with peculiarities that the bundled model does not have, served by one engine.

The model is a base model: no chat template, and a token in its tokenizer that it has no row for; checkpoints
like both are published. The cache holds 32 blocks of 32 tokens, so that few runs overfill it, and a step
takes at most 64 tokens, so that prompts come in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken

from steersight.engine import loading
from steersight.vectors.store import SteeringVector

from .families import HIDDEN, LAYERS, make_checkpoint
from .tokenizers_made import byte_level

END, WITHOUT_ROW = 259, 260
ROWS = 260
BLOCK, BLOCKS = 32, 33
"""Tokens of a block, and how many there are. One of them vLLM keeps to itself."""
MOST_IN_STEP = 64
ODD_VECTORS = {"gone": 1, "stays": 2}
"""Their seeds, by name."""


def make_odd_checkpoint(folder: Path) -> None:
    """A random GPT-2 with 260 rows, and a tokenizer with 261 tokens."""
    config = transformers.GPT2Config(
        n_embd=HIDDEN, n_layer=LAYERS, n_head=4, n_positions=256, vocab_size=ROWS, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    make_checkpoint(config, folder)
    added = [AddedToken("<|end|>", special=True), AddedToken("<|extra|>", special=True)]
    byte_level(added, bos=True).save_pretrained(folder)


def odd_vector(name: str, seed: int) -> SteeringVector:
    """A random direction at one layer."""
    direction = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(
        id=name, label=name, description="A random direction.", layers=[1], directions=direction,
        range=(-1.0, 1.0), suggested=0.3, model="any", hidden_size=HIDDEN,
    )  # fmt: skip


@contextmanager
def few_blocks() -> Iterator[None]:
    """Engines that are started meanwhile have so few blocks."""
    loading.import_engine(lambda _stage, _progress: None)
    from steersight.engine import nnsight_adapter

    class Small(nnsight_adapter.SteersightVLLM):  # type: ignore[misc]  # nnsight ships no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            more = {**kwargs, "block_size": BLOCK, "max_num_batched_tokens": MOST_IN_STEP}
            super().__init__(*args, **more, num_gpu_blocks_override=BLOCKS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnsight_adapter, "SteersightVLLM", Small)
        yield
