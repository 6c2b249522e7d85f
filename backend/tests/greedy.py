"""Greedy replies one token at a time with a KV cache, as an engine computes them, by transformers alone.

`reference.py` reads a finished sequence in one pass. This writes the sequence: it proves that the one pass
sees what step-by-step decoding does, and it shows what a vector does to the text. No code of the package is
used here either. The formula, per layer and position p >= 1, with the layer's output h:

    d = sum_k s_k * ||h|| * v_k        h' = h + d * min(1, cap * ||h|| / ||d||)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .reference import Steering


@dataclass(frozen=True)
class Generation:
    """A greedy reply."""

    ids: list[int]
    """Reply tokens; an end-of-sequence token that stopped it is the last of them."""
    gaps: list[float]
    """Per reply token: how much larger its logit was than the runner-up's. Near 0 means a tie."""


@torch.inference_mode()
def greedy(
    model: Any,
    prompt_ids: Sequence[int],
    max_tokens: int,
    steering: Steering | None = None,
    cap: float = 1.0,
    ignore_eos: bool = False,
) -> Generation:
    """The greedy reply; the forward pass of position p is steered with `steering(p)`, position 0 never."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    end = model.generation_config.eos_token_id
    ends = set() if ignore_eos else set(end) if isinstance(end, list) else {end}
    ids: list[int] = []
    gaps: list[float] = []
    fresh, done = list(prompt_ids), 0
    while len(ids) < max_tokens:
        with _steered(model, done, len(fresh), steering, cap):
            logits = model(
                input_ids=torch.tensor([fresh]),
                # Ones always: a mask guessed from the padding id would hide every end-of-turn token.
                attention_mask=torch.ones(1, done + len(fresh), dtype=torch.int64),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[0, -1]
        top = logits.topk(2)
        ids.append(int(logits.argmax()))
        gaps.append(float(top.values[0] - top.values[1]))
        if ids[-1] in ends:
            break
        done += len(fresh)
        fresh = [ids[-1]]
    return Generation(ids, gaps)


@contextmanager
def _steered(model: Any, start: int, count: int, steering: Steering | None, cap: float) -> Iterator[None]:
    """Hook the layers for one pass over the positions [start, start + count)."""
    in_force = [
        steering(position) if steering and position > 0 else [] for position in range(start, start + count)
    ]

    def hook(index: int) -> Any:
        def run(_module: Any, _args: Any, found: Any) -> Any:
            output = found[0] if isinstance(found, tuple) else found
            after = output.clone()
            for row, active in enumerate(in_force):
                here = [(v, s) for layer, v, s in active if layer == index and s != 0.0]
                if here:
                    after[0, row] = _push(output[0, row], here, cap)
            return (after, *found[1:]) if isinstance(found, tuple) else after

        return run

    layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _push(h: torch.Tensor, here: Sequence[tuple[torch.Tensor, float]], cap: float) -> torch.Tensor:
    """The formula of the module's header for one token; h [hidden_size] fp32."""
    norm = h.norm()
    delta = torch.zeros_like(h)
    for direction, strength in here:
        delta = delta + strength * norm * direction
    size, limit = float(delta.norm()), cap * float(norm)
    return h + (delta * (limit / size) if size > limit else delta)
