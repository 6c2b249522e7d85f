"""What a metric is, and the table of those that can be watched.

A metric turns the residual stream around some layers (all tokens of all runs of a step at once) into one
number per token and layer. It is called in the worker right after the layers ran, so it must use tensor
operations
only: no `.item()`, no branch on data. Adding one means adding a `Metric` here, or giving a file with
`--metrics` (`own.py`); rows, wire, legend, page and docs/metrics.md follow from what it declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import parts, projection, residual, steering
from .router import Experts

if TYPE_CHECKING:
    import torch

    from .view import View

Family = Literal["residual", "parts", "projection", "steering", "router", "logit_lens", "own"]


@dataclass(frozen=True)
class Scale:
    """How a metric is coloured by default, in display units; None fits the data, the first position left
    out."""

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
    family: Family
    cost: str
    """What computing it means, for people who choose."""
    compute: Callable[[View], torch.Tensor] | None = None
    """View -> [layers, tokens] fp32; None where it does not come from the stream: the logit lens makes its
    own, and the routers of experts are read as they choose."""
    default: bool = False
    """Whether a run that names no metrics gets it."""


_RESIDUAL_COST = "a few operations for all layers of a step"
_ROUTER_COST = "reads every layer's router once more"
_LENS_COST = "one product with the unembedding per step, for the newest token of each run"

BUILT_IN: tuple[Metric, ...] = (
    Metric(
        id="residual_norm",
        label="Residual norm",
        description="Length of the residual stream after the layer (and after steering there).",
        unit="L2", transform="log2", scale=Scale("sequential"), family="residual", cost=_RESIDUAL_COST,
        compute=residual.residual_norm, default=True,
    ),
    Metric(
        id="update_norm",
        label="Update norm",
        description="Length of what the layer added to the residual stream, steering not counted.",
        unit="L2", transform="log2", scale=Scale("sequential"), family="residual", cost=_RESIDUAL_COST,
        compute=residual.update_norm, default=True,
    ),
    Metric(
        id="cosine_below",
        label="Cosine with the layer below",
        description="Cosine between the residual stream after the layer and the one that entered it.",
        # Not -1 to 1: neighbouring layers agree so much that a fixed scale would be one colour.
        unit="", transform="linear", scale=Scale("sequential"), family="residual", cost=_RESIDUAL_COST,
        compute=residual.cosine_below, default=True,
    ),
    Metric(
        id="attention_norm",
        label="Attention's part",
        description="Length of what attention added to the residual stream.",
        unit="L2", transform="log2", scale=Scale("sequential"), family="parts",
        cost="keeps attention's output of every layer", compute=parts.attention_norm,
    ),
    Metric(
        id="mlp_norm",
        label="MLP's part",
        description="Length of what the MLP added to the residual stream.",
        unit="L2", transform="log2", scale=Scale("sequential"), family="parts",
        cost="keeps attention's output of every layer", compute=parts.mlp_norm,
    ),
    Metric(
        id="attention_share",
        label="Attention's share of the update",
        description="Attention's part along the layer's update, as a share of it; the MLP has the rest.",
        unit="", transform="linear", scale=Scale("diverging", lo=0.0, hi=1.0, mid=0.5), family="parts",
        cost="keeps attention's output of every layer", compute=parts.attention_share,
    ),
    Metric(
        id="steering_share",
        label="What steering added",
        description="Length of what steering added at the layer, as a share of the stream's before it.",
        unit="", transform="linear", scale=Scale("sequential", lo=0.0), family="steering",
        cost="a few operations for each steered layer", compute=steering.share,
    ),
    Metric(
        id="lens_entropy",
        label="Logit lens: entropy",
        description="Entropy of the raw logit lens: the stream through final norm and unembedding.",
        unit="nats", transform="linear", scale=Scale("sequential", lo=0.0), family="logit_lens",
        cost=_LENS_COST,
    ),
    Metric(
        id="lens_probability",
        label="Logit lens: probability of the next token",
        description="Probability that the layer's raw logit lens gives to the token that was then written.",
        unit="", transform="linear", scale=Scale("sequential", lo=0.0, hi=1.0), family="logit_lens",
        cost=_LENS_COST,
    ),
    Metric(
        id="lens_kl",
        label="Logit lens: KL to the final distribution",
        description="KL divergence of the layer's raw logit lens from the model's final distribution.",
        unit="nats", transform="linear", scale=Scale("sequential", lo=0.0), family="logit_lens",
        cost=_LENS_COST,
    ),
)  # fmt: skip
LENS_METRICS = tuple(metric.id for metric in BUILT_IN if metric.family == "logit_lens")


def for_vector(vector: str, label: str) -> tuple[Metric, Metric]:
    """The two metrics of a steering vector: projection after steering and before."""

    def metric(when: str, words: str, compute: Callable[[View], torch.Tensor]) -> Metric:
        return Metric(
            id=f"{when}:{vector}",
            label=f"Projection on {label}" + ("" if when == "projection" else ", before steering"),
            description=f"Component of the residual stream along {label} {words}, as a share of its length.",
            unit="", transform="linear", scale=Scale("diverging", mid=0.0), family="projection",
            cost="one product of all layers with the vector", compute=compute,
        )  # fmt: skip

    return (
        metric("projection", "after the layer and its steering", projection.after(vector)),
        metric("projection_before", "after the layer, before its steering", projection.before(vector)),
    )


def for_experts(experts: Experts) -> list[Metric]:
    """The metrics of a model whose layers have experts: how its routers decide, and for what."""

    def metric(name: str, label: str, description: str, unit: str, scale: Scale) -> Metric:
        return Metric(
            id=name, label=label, description=description, unit=unit, transform="linear", scale=scale,
            family="router", cost=_ROUTER_COST,
        )  # fmt: skip

    share = Scale("sequential", lo=0.0, hi=1.0)
    found = [
        metric(
            "router_entropy", "Router: entropy",
            "Entropy of the router's scores over all experts of the layer.", "nats",
            Scale("sequential", lo=0.0),
        ),
        metric(
            "router_top", "Router: score of the first expert",
            "Share that the expert of the greatest weight has of the router's scores.", "", share,
        ),
        metric(
            "router_taken", "Router: scores of the chosen experts",
            "Share that all chosen experts together have of the router's scores.", "", share,
        ),
    ]  # fmt: skip
    last = Scale("sequential", lo=0.0, hi=float(experts.count - 1))
    for rank in range(1, experts.chosen + 1):
        found += [
            metric(
                f"expert:{rank}", f"Expert {rank}",
                f"Number, from 0, of the expert with weight no. {rank}; {experts.chosen} of {experts.count} "
                "are chosen for each token.", "", last,
            ),
            metric(
                f"expert_weight:{rank}", f"Weight of expert {rank}",
                "What the expert's output is multiplied by before the chosen ones are added up.", "",
                Scale("sequential", lo=0.0),
            ),
        ]  # fmt: skip
    return found


class Registry:
    """The metrics of one server: the built-in ones, those of experts, two per vector, and those of its own
    files."""

    def __init__(
        self,
        vectors: Iterable[tuple[str, str]] = (),
        own: Iterable[Metric] = (),
        experts: Experts | None = None,
    ) -> None:
        """
        Args:
            vectors: (id, label) of each.
            own: metrics of the server's own files.
            experts: of the model's layers; None where it has none.
        """
        mine = self._own = tuple(own)
        self.experts = experts
        pairs = [metric for vector, label in vectors for metric in for_vector(vector, label)]
        routed = [] if experts is None else for_experts(experts)
        every = (*BUILT_IN, *routed, *pairs, *mine)
        self._by_id = {metric.id: metric for metric in every}
        if len(self._by_id) != len(every):
            raise ValueError("Two metrics have the same id. Rename the one of your own file.")

    def with_vectors(self, vectors: Iterable[tuple[str, str]]) -> Registry:
        """The same with other vectors."""
        return Registry(vectors, self._own, self.experts)

    def __contains__(self, name: str) -> bool:
        return name in self._by_id

    def __getitem__(self, name: str) -> Metric:
        return self._by_id[name]

    def all(self) -> list[Metric]:
        """All metrics, in the order in which rows hold them."""
        return list(self._by_id.values())

    def defaults(self) -> list[str]:
        """Ids of the metrics a run gets that names none."""
        return [metric.id for metric in self._by_id.values() if metric.default]

    def ordered(self, names: Iterable[str]) -> list[str]:
        """These ids, each once, in the order in which rows hold them."""
        wanted = set(names)
        return [name for name in self._by_id if name in wanted]

    def to_half(self, values: torch.Tensor, metrics: list[str]) -> torch.Tensor:
        """Bring [rows, metrics, layers] fp32 values into the form that clients get, fp16 of the same shape.

        Each metric is transformed as it declares. `log2` maps values below 2**-24 to -24; NaN, which says
        "not computed here", stays NaN. The inverse for display is `2 ** x`. What is beyond the range of fp16
        becomes its largest number.
        """
        import torch

        logs = [index for index, name in enumerate(metrics) if self._by_id[name].transform == "log2"]
        if len(logs) == len(metrics):
            values = values.clamp_min(_LOG_FLOOR).log2()
        elif logs:
            values = values.clone()
            for index in logs:
                values[:, index] = values[:, index].clamp_min(_LOG_FLOOR).log2()
        largest = torch.finfo(torch.float16).max
        return values.clamp(-largest, largest).to(torch.float16)


# 2 ** -24 is the smallest positive half float; a norm of zero would have no logarithm.
_LOG_FLOOR = 2.0**-24
