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


@dataclass(frozen=True)
class FinalReading:
    """Of the distributions that tokens were drawn from, before temperature and the like; [requests] each."""

    logprobs: torch.Tensor
    """fp32, natural logarithm of the written token's probability"""
    ranks: torch.Tensor
    """int32, of the written token: 1 for the likeliest, ties at their worst"""
    entropy: torch.Tensor | None
    """fp32, nats"""
    log_z: torch.Tensor
    """fp32, natural logarithm of what the exponentials of a row's logits come to"""


# Rows of logits reduced at a time. On a CPU few enough to stay in its cache, several times faster; on
# a GPU as many as temporary tensors of some 200 MB hold, because each operation costs its launch.
_CPU_ROWS = 8
_GPU_ROWS = 384
# exp(-80) is 2e-35: nothing beside 1, and not yet one of the subnormal numbers that slow a CPU down tenfold.
_FAINT = -80.0
_BLOCK = 128


def read_final(logits: torch.Tensor, written: torch.Tensor, *, entropy: bool) -> FinalReading:
    """Reduce the model's final logits, in one pass over each row.

    Args:
        logits: [requests, vocab_size] of any float type, as the unembedding gave them.
        written: [requests] int64, the token that each request wrote.
        entropy: whether the distributions' entropies are wanted.
    """
    import torch

    logprobs: list[torch.Tensor] = []
    ranks: list[torch.Tensor] = []
    nats: list[torch.Tensor] = []
    z: list[torch.Tensor] = []
    for rows, tokens in zip(_pieces(logits), torch.split(written, _rows(logits)), strict=True):
        chosen = rows.gather(1, tokens[:, None])
        ranks.append((rows >= chosen).sum(dim=-1))
        if entropy:
            log_z, some = _softmax(rows)
            nats.append(some)
        else:
            log_z = torch.logsumexp(rows.float(), dim=-1)
        logprobs.append(chosen.squeeze(1).float() - log_z)
        z.append(log_z)
    return FinalReading(
        torch.cat(logprobs), torch.cat(ranks).int(), torch.cat(nats) if entropy else None, torch.cat(z)
    )


def read_alternatives(
    logits: torch.Tensor, log_z: torch.Tensor, top: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens of the model's final distributions.

    Args:
        logits: [runs, vocab_size] of any float type.
        log_z: [runs] of these rows, as `read_final` gives it.
        top: how many to name.

    Returns:
        Their ids [runs, top] int32, likeliest first, and log probabilities [runs, top] fp32.
    """
    import torch

    found = [_top(rows.float(), top) for rows in _pieces(logits)]
    ids = torch.cat([where for _, where in found]).int()
    return ids, torch.cat([values for values, _ in found]) - log_z[:, None]


def read(logits: torch.Tensor, written: torch.Tensor, top: int) -> LensReading:
    """Reduce the logits of some layers.

    Args:
        logits: [layers, runs, vocab_size] of any float type; the last layer's are the model's final ones.
        written: [runs] int64, the token each run wrote.
        top: how many of the likeliest tokens to name.
    """
    import torch

    layers, runs, _ = logits.shape
    final = logits[-1].float()
    final_z, _ = _softmax(final)
    p = torch.exp(final - final_z[:, None])
    z: list[torch.Tensor] = []
    entropy: list[torch.Tensor] = []
    apart: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    ids: list[torch.Tensor] = []
    # Whole layers at a time where they are small, parts of one where they are not.
    together = max(1, _rows(logits) // runs)
    for some_layers in torch.split(logits, together):
        for rows, last, weights in zip(
            _pieces(some_layers, 1), _pieces(final, 0), _pieces(p, 0), strict=True
        ):
            rows = rows.float()
            log_z, nats = _softmax(rows)
            z.append(log_z)
            entropy.append(nats)
            # sum p (z_final - z) and not two sums: where the two are close, so are their logits.
            apart.append(log_z + (last - rows).mul_(weights).sum(dim=-1))
            best, where = _top(rows.flatten(0, 1), top)
            values.append(best.view(*log_z.shape, top) - log_z[..., None])
            ids.append(where.view(*log_z.shape, top))

    def whole(pieces: list[torch.Tensor]) -> torch.Tensor:
        """Pieces of [layers, runs, ...] in one: those of the same layers lie side by side."""
        across = -(-runs // _rows(logits))
        return torch.cat([torch.cat(pieces[at : at + across], dim=1) for at in range(0, len(pieces), across)])

    chosen = logits.gather(-1, written.view(1, -1, 1).expand(layers, -1, 1)).squeeze(-1).float()
    return LensReading(
        entropy=whole(entropy),
        probability=(chosen - whole(z)).exp(),
        kl=(whole(apart) - final_z).clamp_min(0.0),
        top_ids=whole(ids).int(),
        top_probabilities=whole(values).exp(),
    )


def _rows(logits: torch.Tensor) -> int:
    return _CPU_ROWS if logits.device.type == "cpu" else _GPU_ROWS


def _pieces(rows: torch.Tensor, along: int = 0) -> tuple[torch.Tensor, ...]:
    import torch

    return torch.split(rows, _rows(rows), dim=along)


def _softmax(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log Z and entropy of softmax(rows) along the last axis: with x = z - max,
    H = log sum e^x - (sum x e^x) / sum e^x."""
    rows = rows.float()
    highest = rows.amax(dim=-1, keepdim=True)
    x = (rows - highest).clamp_min_(_FAINT)
    weights = x.exp()
    total = weights.sum(dim=-1)
    log_total = total.log()
    return highest.squeeze(-1) + log_total, log_total - weights.mul_(x).sum(dim=-1) / total


def _top(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of each row, and where: among the blocks with the largest maxima, the only
    candidates."""
    import torch

    padding = -rows.shape[-1] % _BLOCK
    if padding:
        rows = torch.nn.functional.pad(rows, (0, padding), value=-torch.inf)
    blocks = rows.view(len(rows), -1, _BLOCK)
    chosen = blocks.amax(dim=-1).topk(min(count, blocks.shape[1]), dim=-1).indices
    candidates = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    best = candidates.topk(count, dim=-1)
    where = chosen.gather(1, best.indices // _BLOCK) * _BLOCK + best.indices % _BLOCK
    return best.values, where


def lens_layers(layers: int, stride: int) -> list[int]:
    """Every `stride`-th layer counted down from the last, which is always one of them; ascending."""
    return sorted(range(layers - 1, -1, -stride))
