"""Blocks of code, run by stock NNsight twice: sent to a server, and in transformers under `LanguageModel`.

In vLLM a layer gives the stream as two tensors whose sum it is, [tokens, hidden_size]; in transformers as
one, [1, tokens, hidden_size]. Beside that the blocks are the same.
"""

from __future__ import annotations

import asyncio
import linecache
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from steersight.engine.tracing.asked import Block, TracedRequest
from steersight.engine.tracing.reader import Reader

Saves = dict[str, torch.Tensor]

PROMPT = "The Eiffel Tower is in the city of"
OTHER = "Once upon a time there was"


@dataclass
class Served:
    """NNsight's tree of a model, and where traces of it are run."""

    tree: Any
    address: str
    token: str

    def trace(self, *prompt: str, **sampling: Any) -> Any:
        return self.tree.trace(
            *prompt, serve=f"http://{self.address}", api_key=self.token, **{"temperature": 0.0, **sampling}
        )

    async def run(self, block: Callable[[Served], Saves]) -> Saves:
        """The block's saves. In a thread: NNsight's client waits, and the server is in this process."""
        return await asyncio.to_thread(block, self)


def tree_of(folder: str) -> Any:
    """What a client without a GPU writes its traces against."""
    from steersight.engine.nnsight_adapter import module_tree

    return module_tree(folder, dtype="float32", max_model_len=256)


def language_model(model: Any, folder: str) -> Any:
    """NNsight around a model of transformers."""
    from nnsight import LanguageModel
    from transformers import AutoTokenizer

    return LanguageModel(model, tokenizer=AutoTokenizer.from_pretrained(folder))


def probe(hidden_size: int) -> torch.Tensor:
    """A random direction [hidden_size]."""
    return torch.randn(hidden_size, generator=torch.Generator().manual_seed(3))


def sae(hidden_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random autoencoder: encoder [hidden_size, 64], decoder [64, hidden_size]."""
    generator = torch.Generator().manual_seed(4)
    return (
        torch.randn(hidden_size, 64, generator=generator) / hidden_size**0.5,
        torch.randn(64, hidden_size, generator=generator) / 8,
    )


# ---------------------------------------------------------------- each block, here and in transformers


def read_layers(at: Served) -> Saves:
    model = at.tree
    with at.trace(PROMPT, max_tokens=1):
        low = sum(model.model.layers[1].output).clone().save()
        high = sum(model.model.layers[-1].output).clone().save()
        logits = model.logits.clone().save()
    return {"low": low, "high": high, "logits": logits}


def read_layers_there(lm: Any) -> Saves:
    with lm.trace(PROMPT):
        low = lm.model.layers[1].output[0].clone().save()
        high = lm.model.layers[-1].output[0].clone().save()
        logits = lm.lm_head.output[0, -1:].clone().save()
    return {"low": low, "high": high, "logits": logits}


def zero_mlp(at: Served) -> Saves:
    model = at.tree
    with at.trace(PROMPT, max_tokens=6) as tracer:
        for _ in tracer.iter[:6]:
            model.model.layers[2].mlp.output[:] = 0
        written = tracer.result.save()
    return {"ids": torch.tensor(written.outputs[0].token_ids)}


def zero_mlp_there(lm: Any) -> Saves:
    with lm.generate(PROMPT, max_new_tokens=6, do_sample=False) as tracer:
        for _ in tracer.iter[:6]:
            lm.model.layers[2].mlp.output[:] = 0
        written = tracer.result.save()
    return {"ids": written[0, -6:]}


def forbid_tokens(at: Served) -> Saves:
    model = at.tree
    with at.trace(PROMPT, max_tokens=5) as tracer:
        best = [].save()
        for _ in tracer.iter[:5]:
            first = model.logits.argmax(-1)
            model.logits[:, first] = -float("inf")
            best.append(model.samples.clone())
    return {"ids": torch.stack([one.flatten()[0] for one in best])}


def forbid_tokens_there(lm: Any) -> Saves:
    with lm.generate(PROMPT, max_new_tokens=5, do_sample=False) as tracer:
        for _ in tracer.iter[:5]:
            logits = lm.lm_head.output
            logits[0, -1, logits[0, -1].argmax()] = -float("inf")
        written = tracer.result.save()
    return {"ids": written[0, -5:]}


def decompose(at: Served) -> Saves:
    model = at.tree
    with at.trace(PROMPT, max_tokens=1):
        stream = sum(model.model.layers[2].output)
        values = torch.linalg.svd(stream, full_matrices=False)[1].save()
    return {"values": values}


def decompose_there(lm: Any) -> Saves:
    with lm.trace(PROMPT):
        values = torch.linalg.svd(lm.model.layers[2].output[0], full_matrices=False)[1].save()
    return {"values": values}


def probed(at: Served) -> Saves:
    model, direction = at.tree, probe(at.tree.config.hidden_size)
    with at.trace(PROMPT, max_tokens=4) as tracer:
        scores = [].save()
        for _ in tracer.iter[:4]:
            scores.append((sum(model.model.layers[3].output) @ direction)[-1])
    return {"scores": torch.stack(list(scores))}


def probed_there(lm: Any) -> Saves:
    direction = probe(lm.config.hidden_size)
    with lm.generate(PROMPT, max_new_tokens=4, do_sample=False) as tracer:
        scores = [].save()
        for _ in tracer.iter[:4]:
            scores.append((lm.model.layers[3].output[0] @ direction)[-1])
    return {"scores": torch.stack(list(scores))}


def encoded(at: Served) -> Saves:
    model = at.tree
    encoder, decoder = sae(at.tree.config.hidden_size)
    with at.trace(PROMPT, max_tokens=3) as tracer:
        found, logits = [].save(), [].save()
        for _ in tracer.iter[:3]:
            hidden, residual = model.model.layers[2].output
            features = torch.relu((hidden + residual) @ encoder)
            found.append(features[-1].clone())
            hidden[:] = hidden + features @ decoder
            logits.append(model.logits.clone())
    return {"features": torch.stack(list(found)), "logits": torch.cat(list(logits))}


def encoded_there(lm: Any) -> Saves:
    encoder, decoder = sae(lm.config.hidden_size)
    with lm.generate(PROMPT, max_new_tokens=3, do_sample=False) as tracer:
        found, logits = [].save(), [].save()
        for _ in tracer.iter[:3]:
            stream = lm.model.layers[2].output
            features = torch.relu(stream @ encoder)
            found.append(features[0, -1].clone())
            stream[:] = stream + features @ decoder
            logits.append(lm.lm_head.output[0, -1:].clone())
    return {"features": torch.stack(list(found)), "logits": torch.cat(list(logits))}


BLOCKS: dict[str, tuple[Callable[[Served], Saves], Callable[[Any], Saves]]] = {
    "any layer": (read_layers, read_layers_there),
    "an MLP set to zero": (zero_mlp, zero_mlp_there),
    "logits edited": (forbid_tokens, forbid_tokens_there),
    "a decomposition": (decompose, decompose_there),
    "a probe": (probed, probed_there),
    "an autoencoder": (encoded, encoded_there),
}


def differing(found: Saves, expected: Saves, tolerance: float = 1e-4) -> list[str]:
    """What differs, in sentences; floats by more than `tolerance` of the largest of them."""
    said = []
    assert set(found) == set(expected)
    for name, there in expected.items():
        here, there = found[name].detach().cpu(), there.detach()
        if here.shape != there.shape:
            said.append(f"{name} is {tuple(here.shape)} and not {tuple(there.shape)}")
        elif not there.is_floating_point():
            if not torch.equal(here.long(), there.long()):
                said.append(f"{name} is {here.tolist()} and not {there.tolist()}")
        elif (worst := float((here - there).abs().max() / there.abs().max())) > tolerance:
            said.append(f"{name} is off by {worst:.1e}")
    return said


# ---------------------------------------------------------------- without a server

IDS = [5, 17, 3, 40, 22, 9]


class Packing:
    """In the place of `Served`: what a trace would send is kept here, and nothing is run."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self.sent = b""

    def trace(self, *prompt: Any, **sampling: Any) -> Any:
        from nnsight.schema.request import RequestModel
        from nnsight.tracing.backend import Backend

        packing = self

        class Keep(Backend):  # type: ignore[misc]
            def __call__(self, tracer: Any) -> None:
                packing.sent = RequestModel.serialize(tracer)

        return self.tree.trace(*prompt, backend=Keep(), **{"temperature": 0.0, **sampling})


def packed(tree: Any, block: Callable[[Any], Any]) -> TracedRequest:
    """The one request of a block, as the server would read it."""
    packing = Packing(tree)
    with suppress(NameError):  # it has no saves to give back
        block(packing)
    reader = object.__new__(Reader)
    reader._model, reader._known = tree, tree._remoteable_persistent_objects()
    # What a fork of the reader leaves behind goes with it: blocks that wait, and sources in the place of this
    # file's.
    try:
        with mock.patch.dict(linecache.cache):
            (one,) = reader._read(packing.sent, False)
    finally:
        tree.interleaver.cancel()
    return TracedRequest(one["ids"], one["sampling"], Block(one["block"], one["edits"]))


def read_parts(at: Served) -> Saves:
    model = at.tree
    with at.trace(IDS, max_tokens=1):
        heads = model.model.layers[0].self_attn.o_proj.input.clone().save()
        stream = sum(model.model.layers[1].output).clone().save()
        logits = model.logits.clone().save()
    return {"heads": heads, "stream": stream, "logits": logits}


def read_parts_there(model: Any) -> Saves:
    with model.trace(torch.tensor([IDS])):
        heads = model.model.layers[0].self_attn.o_proj.input[0].clone().save()
        stream = model.model.layers[1].output[0].clone().save()
        logits = model.lm_head.output[0, -1:].clone().save()
    return {"heads": heads, "stream": stream, "logits": logits}


def change_parts(at: Served) -> Saves:
    model = at.tree
    with at.trace(IDS, max_tokens=1):
        model.model.layers[0].self_attn.o_proj.input[:, :8] = 0.5
        model.model.layers[1].mlp.output[:] = 0
        logits = model.logits.clone().save()
    return {"logits": logits}


def change_parts_there(model: Any) -> Saves:
    with model.trace(torch.tensor([IDS])):
        model.model.layers[0].self_attn.o_proj.input[0, :, :8] = 0.5
        model.model.layers[1].mlp.output[:] = 0
        logits = model.lm_head.output[0, -1:].clone().save()
    return {"logits": logits}


TOKEN_IDS: dict[str, tuple[Callable[[Any], Saves], Callable[[Any], Saves]]] = {
    "parts read": (read_parts, read_parts_there),
    "parts changed": (change_parts, change_parts_there),
}
