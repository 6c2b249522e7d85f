"""The independent reference: Hugging Face transformers in fp32, with forward hooks and nothing of Steersight.

One teacher-forced pass over a whole sequence tells everything: if every reply token is the argmax of the
logits before it, greedy decoding would have written exactly this reply; and the hooks see the residual
stream around every layer at every position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

# position -> [(layer, unit direction [hidden_size], strength)]
Steering = Callable[[int], list[tuple[int, torch.Tensor, float]]]


@dataclass
class Reading:
    """What the reference says of one sequence of n tokens in a model of L layers."""

    best: list[int]
    """Per position: the likeliest next token."""
    gap: list[float]
    """Per position: logit of the likeliest minus logit of the second."""
    residual_norm: NDArray[np.float64]  # [n, L]
    update_norm: NDArray[np.float64]  # [n, L]
    cosine_below: NDArray[np.float64]  # [n, L]
    logprobs: NDArray[np.float64]  # [n, vocabulary], of the token after each position

    def ties(self, ids: list[int], prompt: int, margin: float = 1e-3) -> list[int]:
        """Reply positions where another token won by less than `margin` of a logit."""
        return [p for p in range(prompt, len(ids)) if self.best[p - 1] != ids[p] and self.gap[p - 1] < margin]

    def differing(self, ids: list[int], prompt: int) -> list[int]:
        """Reply positions whose token is not the reference's greedy choice."""
        return [p for p in range(prompt, len(ids)) if self.best[p - 1] != ids[p]]


class Reference:
    """A transformers model read with hooks."""

    def __init__(self, folder: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    @torch.inference_mode()
    def read(self, ids: list[int], steering: Steering | None = None, cap: float = 1.0) -> Reading:
        """One pass over `ids`; position p is steered with `steering(p)`, position 0 never.

        At a layer, u = sum strength * direction and h becomes h + ||h|| * u * min(1, cap / ||u||).
        """
        entering: dict[int, torch.Tensor] = {}
        leaving: dict[int, torch.Tensor] = {}
        steered: dict[int, torch.Tensor] = {}
        pushes: dict[int, torch.Tensor] = {}
        hidden = self.model.config.hidden_size
        for position in range(1, len(ids)):
            for layer, direction, strength in steering(position) if steering else []:
                push = pushes.setdefault(layer, torch.zeros(len(ids), hidden))
                push[position] += strength * direction

        def hook(layer: int) -> Callable[..., torch.Tensor]:
            def run(_module: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
                entering[layer] = args[0][0].clone()
                leaving[layer] = output[0].clone()
                result = output
                if layer in pushes:
                    u = pushes[layer]
                    size = u.norm(dim=-1, keepdim=True)
                    factor = torch.where(size > cap, cap / size.clamp_min(1e-30), torch.ones_like(size))
                    result = output + output.norm(dim=-1, keepdim=True) * (u * factor)
                steered[layer] = result[0].clone()
                return result

            return run

        hooks = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(self.model.model.layers)]
        try:
            # An explicit mask of ones: without it transformers masks tokens that equal the padding token.
            tokens = torch.tensor([ids])
            logits = self.model(tokens, attention_mask=torch.ones_like(tokens)).logits[0]
        finally:
            for handle in hooks:
                handle.remove()
        top = logits.topk(2, dim=-1)
        layers = range(len(entering))

        def table(value: Callable[[int], torch.Tensor]) -> NDArray[np.float64]:
            return np.stack([value(layer).double().numpy() for layer in layers], axis=1)

        return Reading(
            best=top.indices[:, 0].tolist(),
            gap=(top.values[:, 0] - top.values[:, 1]).tolist(),
            residual_norm=table(lambda i: steered[i].double().norm(dim=-1)),
            update_norm=table(lambda i: (leaving[i].double() - entering[i].double()).norm(dim=-1)),
            cosine_below=table(
                lambda i: torch.cosine_similarity(steered[i].double(), entering[i].double(), dim=-1)
            ),
            logprobs=logits.double().log_softmax(dim=-1).numpy(),
        )
