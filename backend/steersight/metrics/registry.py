"""What a metric is, and the table of those that rows carry.

A metric turns one layer's view of a step (all tokens of all runs at once) into one number per token. It is
called in the worker inside the forward pass, so it must use tensor operations only: no `.item()`, no branch
on data, no state between layers. Adding one means adding a `Metric` to `REGISTRY`; rows, wire, legend and
page follow from what it declares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import residual

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LayerView:
    """The residual stream around one decoder layer, for the tokens of one step.

    All tensors are [tokens, hidden_size], fp32.
    """

    below: torch.Tensor
    """What entered the layer: the stream after the layer below (the embeddings for layer 0)."""
    written: torch.Tensor
    """What the layer itself added, before any steering at this layer."""
    after: torch.Tensor
    """The stream after the layer and its steering: what the next layer reads."""


@dataclass(frozen=True)
class Scale:
    """How a metric is coloured by default, in display units; None fits the data."""

    kind: Literal["sequential", "diverging"]
    lo: float | None = None
    hi: float | None = None
    mid: float | None = None


@dataclass(frozen=True)
class Metric:
    """One number per token and layer, with all that a reader needs to understand it."""

    id: str
    label: str
    description: str
    unit: str
    transform: Literal["linear", "log2"]
    """Applied before the cast to fp16, which ends at 65504 and has 11 bits of precision."""
    scale: Scale
    compute: Callable[[LayerView], torch.Tensor]
    """LayerView -> [tokens] fp32."""


REGISTRY: dict[str, Metric] = {
    metric.id: metric
    for metric in (
        Metric(
            id="residual_norm",
            label="Residual norm",
            description="Length of the residual stream after the layer (and after steering there).",
            unit="L2",
            transform="log2",
            scale=Scale("sequential"),
            compute=residual.residual_norm,
        ),
        Metric(
            id="update_norm",
            label="Update norm",
            description="Length of what the layer added to the residual stream, steering not counted.",
            unit="L2",
            transform="log2",
            scale=Scale("sequential"),
            compute=residual.update_norm,
        ),
        Metric(
            id="cosine_below",
            label="Cosine with the layer below",
            description="Cosine between the residual stream after the layer and the one that entered it.",
            unit="",
            transform="linear",
            # Not -1 to 1: neighbouring layers agree so much that a fixed scale would be one colour.
            scale=Scale("sequential"),
            compute=residual.cosine_below,
        ),
    )
}

# 2 ** -24 is the smallest positive half float; a norm of zero would have no logarithm.
_LOG_FLOOR = 2.0**-24


def metric_ids() -> list[str]:
    """Ids of all metrics, in the order in which rows hold them."""
    return list(REGISTRY)


def to_wire(values: NDArray[np.float32], metrics: list[str]) -> NDArray[np.float16]:
    """Transform [rows, metrics, layers] fp32 values as each metric declares and cast to fp16.

    `log2` maps values below 2**-24 to -24. The inverse for display is `2 ** x`.
    """
    import numpy as np

    out = values.astype(np.float32, copy=True)
    for index, name in enumerate(metrics):
        if REGISTRY[name].transform == "log2":
            out[:, index] = np.log2(np.maximum(out[:, index], _LOG_FLOOR))
    return out.astype("<f2")
