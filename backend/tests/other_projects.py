"""The other projects whose files are imported, and a tiny model that both they and we steer.

repeng and steering-vectors are installed without what they depend on, because their pins are older than ours.
Of scikit-learn both import what they make vectors with, which no test does, and repeng names a type in an
annotation that NumPy 2 no longer has: both get stand-ins while they are imported.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import transformers.utils.import_utils  # before the stand-in: it asks which packages there are

from steersight.vectors.store import SteeringVector

HIDDEN, LAYERS = 32, 6
_STANDS_IN = {
    "sklearn": (),
    "sklearn.decomposition": ("PCA",),
    "sklearn.linear_model": ("LinearRegression", "LogisticRegression"),
}


@contextmanager
def stand_ins() -> Iterator[None]:
    """Lets modules be imported that name what is not there and do not use it here."""
    kept = {name: sys.modules.get(name) for name in _STANDS_IN}
    for name, parts in _STANDS_IN.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(dict.fromkeys(parts, object))
        sys.modules[name] = module
    np.float_ = np.float64
    try:
        yield
    finally:
        del np.float_
        for name, module_before in kept.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before


@pytest.fixture(scope="session")
def repeng() -> Any:
    with stand_ins():
        import repeng
    return repeng


@pytest.fixture(scope="session")
def steering_vectors() -> Any:
    with stand_ins():
        import steering_vectors
    return steering_vectors


@pytest.fixture
def tiny() -> Any:
    """A Llama of six small layers with random weights, anew for each test: some projects change the model."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=50, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


IDS = torch.tensor([[1, 5, 9, 30, 2, 17, 44, 8]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(IDS).logits
    return result


def steered(model: Any, vector: SteeringVector, strength: float) -> torch.Tensor:
    """Logits under h + s * v after each of the vector's layers (`add`: h + s * ||h|| * v), by plain hooks."""
    handles = []
    for layer, unit, length in zip(vector.layers, vector.directions, vector.lengths, strict=True):

        def hook(_m: Any, _i: Any, output: Any, unit: torch.Tensor = unit, length: Any = length) -> Any:
            h = output[0] if isinstance(output, tuple) else output
            size = h.norm(dim=-1, keepdim=True) if vector.operator == "add" else length
            h = h + strength * size * unit
            return (h, *output[1:]) if isinstance(output, tuple) else h

        block = model.model.layers[layer]
        handles.append((block.self_attn if vector.site == "attention" else block).register_forward_hook(hook))
    try:
        return logits(model)
    finally:
        for handle in handles:
            handle.remove()
