"""Numbers from logits: the raw logit lens of layers, and the final distribution's entropy.

The logit lens (nostalgebraist, "interpreting GPT: the logit lens", 2020) reads a middle layer's stream as if
it were the last one: final norm, then unembedding. It is raw: nothing is trained to make up for the layers in
between, so early layers often look surer or stranger than the model is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LensReading:
    """All [layers, runs] fp32, but the top tokens: [layers, runs, k]."""

    entropy: torch.Tensor
    """nats"""
    probability: torch.Tensor
    """of the token that was written"""
    kl: torch.Tensor
    """nats, of the layer's distribution q from the final one p: sum p (log p - log q)"""
    top_ids: torch.Tensor
    """int32, likeliest first"""
    top_probabilities: torch.Tensor


def entropy_of(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of softmax(logits) along the last axis, fp32: log Z - sum p z."""
    import torch

    logp = torch.log_softmax(logits.float(), dim=-1)
    return -torch.einsum("...v,...v->...", logp.exp(), logp)


def read(logits: torch.Tensor, written: torch.Tensor, top: int) -> LensReading:
    """Reduce the logits of some layers.

    Args:
        logits: [layers, runs, vocab_size] of any float type; the last layer's are the model's final ones.
        written: [runs] int64, the token each run wrote.
        top: how many of the likeliest tokens to name.
    """
    import torch

    logp = torch.log_softmax(logits.float(), dim=-1)
    p = logp.exp()
    entropy = -torch.einsum("lrv,lrv->lr", p, logp)
    final_entropy = entropy[-1]
    cross = -torch.einsum("rv,lrv->lr", p[-1], logp)
    likeliest = logp.topk(top, dim=-1)
    chosen = logp.gather(-1, written.view(1, -1, 1).expand(len(logp), -1, 1)).squeeze(-1)
    return LensReading(
        entropy=entropy,
        probability=chosen.exp(),
        kl=(cross - final_entropy).clamp_min(0.0),
        top_ids=likeliest.indices.int(),
        top_probabilities=likeliest.values.exp(),
    )


def lens_layers(layers: int, stride: int) -> list[int]:
    """Every `stride`-th layer counted down from the last, which is always one of them; ascending."""
    return sorted(range(layers - 1, -1, -stride))
