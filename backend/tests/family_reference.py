"""What transformers says of a sequence in any family, in fp32, with forward hooks and nothing of Steersight.

The logit lens of layer i is what the model itself answers with the layers above i taken off: its own final
norm, its own unembedding, its own soft caps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

PARTS = {
    "GPT2Block": "attn", "GPTNeoXLayer": "attention", "GPTJBlock": "attn", "GPTBigCodeBlock": "attn",
    "FalconDecoderLayer": "self_attention", "BloomBlock": "self_attention",
    "Glm4DecoderLayer": "post_self_attn_layernorm",
}  # fmt: skip
SIGMOID = {"Glm4MoeTopkRouter", "DeepseekV3TopkRouter", "Llama4Router"}
"""Routers whose scores are sigmoids of their logits."""
SANDWICH = {
    "Gemma2DecoderLayer", "Gemma3DecoderLayer", "Olmo2DecoderLayer", "Olmo3DecoderLayer",
    "Exaone4DecoderLayer", "FlexOlmoDecoderLayer",
}  # fmt: skip
Push = list[tuple[int, torch.Tensor, float]]
"""(layer, unit direction, strength), from position 1 on"""


@dataclass
class FamilyReading:
    """Arrays of n positions and L layers."""

    metrics: dict[str, NDArray[np.float64]]
    """By metric id, [n, L]; the logit lens at position p speaks of token p + 1."""
    entropy: NDArray[np.float64]  # [n]
    logprobs: NDArray[np.float64]  # [n], of token p + 1 after position p
    ranks: NDArray[np.int64]  # [n]
    best: NDArray[np.int64]  # [n]
    margin: NDArray[np.float64]  # [n], logit of the best minus that of the second
    logits: NDArray[np.float64]  # [L, n, vocab]


class FamilyReference:
    """One checkpoint in transformers."""

    def __init__(self, folder: str, inputs: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        """`inputs` is what every linear layer but the head makes of what it is given; None is nothing."""
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        for name, module in self.model.named_modules() if inputs is not None else ():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                module.register_forward_pre_hook(lambda _module, args: (inputs(args[0]), *args[1:]))
        depth = self.model.config.num_hidden_layers
        ((self.owner, self.name, self.layers),) = [
            (module, name, child)
            for module in self.model.modules()
            for name, child in module.named_children()
            if isinstance(child, torch.nn.ModuleList) and len(child) == depth
        ]

    @torch.inference_mode()
    def read(self, ids: list[int], push: Push, vectors: dict[str, dict[int, torch.Tensor]]) -> FamilyReading:
        """Teacher-forced over `ids`; `vectors` are those to project on, layer -> direction."""
        entering: dict[int, torch.Tensor] = {}
        unsteered: dict[int, torch.Tensor] = {}
        after: dict[int, torch.Tensor] = {}
        attention: dict[int, torch.Tensor] = {}
        routers: dict[int, dict[str, torch.Tensor]] = {}
        handles = []
        for index, layer in enumerate(self.layers):
            handles += [
                module.register_forward_hook(
                    lambda module, _a, output, index=index: routers.__setitem__(
                        index, _routed(output, module.top_k, type(module).__name__ in SIGMOID)
                    )
                )
                for module in layer.modules()
                if type(module).__name__.endswith("Router")
            ]
            handles.append(
                layer.register_forward_hook(
                    self._hook(index, push, entering, unsteered, after), with_kwargs=True
                )
            )
            kind = type(layer).__name__
            name = "post_attention_layernorm" if kind in SANDWICH else PARTS.get(kind, "self_attn")
            if (module := getattr(layer, name, None)) is None:
                continue
            handles.append(
                module.register_forward_hook(
                    lambda _m, _a, output, index=index: attention.__setitem__(
                        index, _first(output)[0].double()
                    )
                )
            )
        try:
            logits = np.stack([self._answer(ids, depth) for depth in range(1, len(self.layers) + 1)])
        finally:
            for handle in handles:
                handle.remove()
        if type(self.layers[0]).__name__ == "BloomBlock":  # its attention has added to the stream already
            attention = {index: added - entering[index] for index, added in attention.items()}
        reading = _reading(ids, logits, entering, unsteered, after, attention, vectors)
        for name in {name for found in routers.values() for name in found}:
            nothing = torch.full((len(ids),), torch.nan, dtype=torch.float64)
            reading.metrics[name] = np.stack(
                [routers.get(i, {}).get(name, nothing).numpy() for i in range(len(self.layers))], axis=1
            )
        return reading

    def _answer(self, ids: list[int], depth: int) -> NDArray[np.float64]:
        """[n, vocab] logits of the model with its first `depth` layers."""
        setattr(self.owner, self.name, self.layers[:depth])
        config = self.model.config
        whole = config.num_hidden_layers
        config.num_hidden_layers = depth
        try:
            tokens = torch.tensor([ids])
            out = self.model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[0]
        finally:
            config.num_hidden_layers = whole
            setattr(self.owner, self.name, self.layers)
        found: NDArray[np.float64] = out.double().numpy()
        return found

    def _hook(self, index: int, push: Push, entering: Any, unsteered: Any, after: Any) -> Callable[..., Any]:
        def run(_module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            stream = _first(output)
            entering[index] = (args[0] if args else kwargs["hidden_states"])[0].double()
            unsteered[index] = stream[0].double()
            u = sum((s * v for layer, v, s in push if layer == index), torch.zeros(stream.shape[-1]))
            if float(u.norm()) > 0:
                u = u * min(1.0, 1.0 / float(u.norm()))
                moved = stream + stream.norm(dim=-1, keepdim=True) * u
                moved[:, 0] = stream[:, 0]
                stream = moved
            after[index] = stream[0].double()
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return run


def _routed(output: tuple[torch.Tensor, ...], top_k: int, sigmoid: bool) -> dict[str, torch.Tensor]:
    """What a router says, by metric id: of its output the ids are whole numbers, and its logits are as wide
    as there are experts."""
    whole = [one for one in output if not one.is_floating_point()]
    floats = [one.double() for one in output if one.is_floating_point()]
    wide = max(one.shape[-1] for one in floats)
    if whole:
        (ids,) = whole
        (logits,) = [one for one in floats if one.shape[-1] == wide]
        (weights,) = [one for one in floats if one.shape[-1] == top_k]
    else:  # Llama 4: scores that are 0 for all that are not chosen, and logits
        scores, logits = floats
        weights, ids = scores.topk(top_k, dim=-1)
    weights, order = weights.sort(dim=-1, descending=True)
    ids = ids.gather(-1, order)
    p = logits.sigmoid() if sigmoid else logits.exp()
    p = p / p.sum(dim=-1, keepdim=True)
    found = {
        "router_entropy": -(p * p.log()).sum(dim=-1),
        "router_top": p.gather(-1, ids)[:, 0],
        "router_taken": p.gather(-1, ids).sum(dim=-1),
    }
    for rank in range(top_k):
        found |= {f"expert:{rank + 1}": ids[:, rank].double(), f"expert_weight:{rank + 1}": weights[:, rank]}
    return found


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _reading(
    ids: list[int],
    logits: NDArray[np.float64],
    entering: dict[int, torch.Tensor],
    unsteered: dict[int, torch.Tensor],
    after: dict[int, torch.Tensor],
    attention: dict[int, torch.Tensor],
    vectors: dict[str, dict[int, torch.Tensor]],
) -> FamilyReading:
    layers = range(len(after))
    u = {i: unsteered[i] - entering[i] for i in layers}

    def table(value: Callable[[int], torch.Tensor]) -> NDArray[np.float64]:
        return np.stack([value(i).numpy() for i in layers], axis=1)

    cosine = torch.nn.functional.cosine_similarity
    metrics = {
        "residual_norm": table(lambda i: after[i].norm(dim=-1)),
        "update_norm": table(lambda i: u[i].norm(dim=-1)),
        "steering_share": table(lambda i: (after[i] - unsteered[i]).norm(dim=-1) / unsteered[i].norm(dim=-1)),
        "cosine_below": table(lambda i: cosine(after[i], entering[i], dim=-1)),
    }
    if len(attention) == len(after):
        metrics |= {
            "attention_norm": table(lambda i: attention[i].norm(dim=-1)),
            "mlp_norm": table(lambda i: (u[i] - attention[i]).norm(dim=-1)),
            "attention_share": table(lambda i: (attention[i] * u[i]).sum(-1) / (u[i] * u[i]).sum(-1)),
        }
    for name, directions in vectors.items():
        near = [directions[min(directions, key=lambda at, i=i: abs(at - i))].double() for i in layers]  # type: ignore[misc]
        metrics[f"projection:{name}"] = table(lambda i, near=near: cosine(after[i], near[i][None], dim=-1))
        metrics[f"projection_before:{name}"] = table(
            lambda i, near=near: cosine(unsteered[i], near[i][None], dim=-1)
        )
    logp = torch.log_softmax(torch.from_numpy(logits), dim=-1)
    p = logp.exp()
    nexts = torch.tensor([*ids[1:], 0])
    metrics["lens_entropy"] = (-(p * logp).sum(-1)).T.numpy()
    metrics["lens_probability"] = p.gather(-1, nexts[None, :, None].expand(len(p), -1, 1))[..., 0].T.numpy()
    metrics["lens_kl"] = (p[-1] * (logp[-1] - logp)).sum(-1).T.numpy()
    final = logp[-1]
    drawn = final.gather(-1, nexts[:, None])
    top = torch.from_numpy(logits[-1]).topk(2, dim=-1)
    return FamilyReading(
        metrics=metrics,
        entropy=metrics["lens_entropy"][:, -1],
        logprobs=drawn[:, 0].numpy(),
        ranks=(final >= drawn).sum(-1).numpy(),
        best=top.indices[:, 0].numpy(),
        margin=(top.values[:, 0] - top.values[:, 1]).numpy(),
        logits=logits,
    )
