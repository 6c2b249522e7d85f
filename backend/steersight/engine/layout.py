"""Where the decoder layers are in a vLLM model, and how to read the residual stream around them.

vLLM's Llama-like decoder layers take `(positions, hidden_states, residual)` and return
`(hidden_states, residual)`: the residual stream after the layer is the sum of the two, and what is added to
`hidden_states` is added to the stream. A model whose layers do anything else is refused when it loads:
summing the wrong two tensors would draw a plausible, wrong heatmap.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOT = "model"
"""Name NNsight gives the root of the module tree in the worker."""


class UnsupportedModelError(RuntimeError):
    """The model's layers are not laid out in a way the lens can read truthfully."""


@dataclass(frozen=True)
class Layout:
    """The places the lens attaches to, as NNsight location names."""

    entry: str
    """Input of the first decoder layer: where the embeddings enter the stream."""
    layers: dict[str, int]
    """Output location of each decoder layer -> its index."""

    @property
    def count(self) -> int:
        return len(self.layers)


def find_layout(model: Any, expected_layers: int) -> Layout:
    """Find the decoder layers of a loaded vLLM model.

    Args:
        model: the torch module vLLM loaded.
        expected_layers: number of decoder layers by the model's configuration.

    Raises:
        UnsupportedModelError: no list of that many layers, or layers with another signature.
    """
    import torch

    name = type(model).__name__
    candidates = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == expected_layers
    ]
    if len(candidates) != 1:
        raise UnsupportedModelError(
            f"{name} has {len(candidates)} lists of {expected_layers} layers, so it is not clear which one "
            "is the decoder. Steersight reads models laid out like Llama; serve one of those."
        )
    path, layers = candidates[0]
    for layer in layers:
        parameters = list(inspect.signature(type(layer).forward).parameters)
        if parameters[:4] != ["self", "positions", "hidden_states", "residual"]:
            raise UnsupportedModelError(
                f"{type(layer).__name__} of {name} takes {parameters[1:]}, not (positions, hidden_states, "
                "residual), so its residual stream cannot be read yet. Serve a Llama-like model."
            )
    return Layout(
        entry=f"{ROOT}.{path}.0.input",
        layers={f"{ROOT}.{path}.{index}.output": index for index in range(expected_layers)},
    )


def stream_entering(value: tuple[tuple[Any, ...], dict[str, Any]]) -> torch.Tensor:
    """The residual stream before the first layer, from its call's `(args, kwargs)`.

    Returns: [tokens, hidden_size] fp32, a copy, because vLLM's fused norm later adds into the same memory.
    """
    args, kwargs = value
    hidden: torch.Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[1]
    return hidden.float().clone()
