"""Where the routers of a mixture of experts are in a vLLM model, and what they decide.

vLLM (0.32) runs every mixture of experts through a `MoERunner`, whose `_apply_quant_method` is handed the
router's logits, whichever kernel comes then. So the logits are taken there, and what they come to is asked of
the same router once more, only where a run wants to know. Models that vLLM serves through transformers may
choose outside of the runner: it is handed weights in the place of logits then, and the chosen experts beside
them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..metrics.router import Experts, RouterReading, Scoring, read_router

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class Routed(NamedTuple):
    """What one router was handed, or has decided, for all tokens of a step."""

    logits: torch.Tensor
    """[tokens, experts]; where the choice was made outside, [tokens, k] of the chosen experts' weights."""
    ids: torch.Tensor | None
    """[tokens, k] of the chosen experts, where the choice was made outside."""

    def at(self, keep: torch.Tensor | None, count: int) -> Routed:
        """The same for some tokens only: those of the batch indices `keep`, or the first `count`."""

        def some(of_all: torch.Tensor) -> torch.Tensor:
            return of_all[:count] if keep is None else of_all.index_select(0, keep)

        return Routed(some(self.logits), None if self.ids is None else some(self.ids))


class ExpertRouters:
    """The routers of one model's layers."""

    def __init__(self, layers: Sequence[torch.nn.Module], experts: Experts) -> None:
        """
        Args:
            layers: the decoder layers.
            experts: as the model's configuration names them.
        """
        self.experts = experts
        self.runners: dict[int, Any] = {}
        """vLLM's `MoERunner` of each layer that has one; layers without are not among them."""
        self._scoring: dict[int, Scoring] = {}
        for index, layer in enumerate(layers):
            found: list[Any] = [
                module for module in layer.modules() if hasattr(module, "_apply_quant_method")
            ]
            scoring = _scoring(found[0].router, experts) if len(found) == 1 else None
            # Of two nobody could say which one a layer's number speaks of.
            if scoring is not None:
                self.runners[index], self._scoring[index] = found[0], scoring
        if not self.runners:
            logger.warning(
                "The model has %d experts in a layer, and no router of theirs that could be read: their "
                "metrics stay empty.",
                experts.count,
            )

    def watch(self, see: Callable[[int, Routed], None]) -> None:
        """Call `see` with each layer's index, as its router is at work."""
        for index, runner in self.runners.items():
            runner._apply_quant_method = functools.partial(
                _apply, runner, runner._apply_quant_method, functools.partial(see, index)
            )

    def read(self, layers: Sequence[int], routed: Sequence[Routed]) -> RouterReading:
        """What the routers of some layers have decided for the same tokens, one layer behind the other.

        All layers at once, because on a GPU every operation costs its launch: layer by layer the reading took
        8 ms of a step for 16 layers on an H100.

        Args:
            layers: indices of layers that have a router, all of one kind of choice, inside vLLM or outside.
            routed: of each what it was handed, for equally many tokens.
        """
        import torch

        scales = [self.runners[layer].routed_scaling_factor for layer in layers]
        handed = torch.stack([one.logits for one in routed])
        if routed[0].ids is not None:
            ids = torch.cat([one.ids for one in routed if one.ids is not None])
            return read_router(None, ids, _scaled(handed, scales).flatten(0, 1))
        logits = handed[..., : self.experts.count]
        chosen = self.experts.chosen
        weights, ids = self._choices(layers, logits)
        # Models that scale what all experts add together scale it here or after the sum, which is the same.
        scaled = _scaled(weights.view(len(layers), -1, weights.shape[-1]), scales).flatten(0, 1)
        return read_router(
            logits.flatten(0, 1), ids[:, :chosen], scaled[:, :chosen], self._scoring[layers[0]]
        )

    def _choices(self, layers: Sequence[int], logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and ids [layers * tokens, k] that routers make of logits [layers, tokens, experts]."""
        import torch

        routers = [self.runners[layer].router for layer in layers]
        if len({_kind(router) for router in routers}) == 1:
            return _choice(routers[0], logits.flatten(0, 1))
        found = [_choice(router, mine) for router, mine in zip(routers, logits, strict=True)]
        return torch.cat([weights for weights, _ in found]), torch.cat([ids for _, ids in found])


def _choice(router: Any, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # A router asks the tokens' hidden states for nothing but their number.
    weights, ids = router._compute_routing(logits.new_empty(len(logits), 1), logits, None)
    return weights, ids


def _kind(router: Any) -> Any:
    """Equal for routers that make the same of the same logits; one that has numbers of its own is its own."""
    if getattr(router, "e_score_correction_bias", None) is not None:
        return id(router)
    plain = {name: one for name, one in vars(router).items() if isinstance(one, (bool, int, float, str))}
    return type(router), getattr(router, "custom_routing_function", None), *sorted(plain.items())


def _scaled(weights: torch.Tensor, scales: list[float]) -> torch.Tensor:
    """Weights [layers, tokens, k], each layer's by its own scale."""
    if all(scale == 1.0 for scale in scales):
        return weights
    return weights * weights.new_tensor(scales)[:, None, None]


def _apply(
    runner: Any, apply: Callable[..., Any], see: Callable[[Routed], None], *args: Any, **kwargs: Any
) -> Any:
    logits = kwargs["router_logits"] if "router_logits" in kwargs else args[1]
    outside = getattr(runner, "_moe_state", None)
    see(Routed(logits, None if outside is None else outside.topk_ids))
    return apply(*args, **kwargs)


_SIGMOID = ("Llama4MoE.custom_routing_function", "token_choice_with_bias")
"""Models' own ways to choose, of those in vLLM 0.32, that score by sigmoids; the others' take a softmax."""


def _scoring(router: Any, experts: Experts) -> Scoring | None:
    """How a router's scores come from its logits; None where it is none that could be read."""
    if not hasattr(router, "_compute_routing") or router.top_k < experts.chosen:
        return None
    own = getattr(router, "custom_routing_function", None)
    if own is not None:
        return "sigmoid" if getattr(own, "__qualname__", "") in _SIGMOID else "softmax"
    known: dict[str, Scoring] = {"softmax": "softmax", "sigmoid": "sigmoid"}
    return known.get(getattr(router, "scoring_func", ""))
