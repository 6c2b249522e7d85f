"""Proofs made once at load, before the first run: what would draw a plausible, wrong heatmap is refused.

`LayoutProof` holds the layout against an eager forward pass, `ranks_agree` one rank's streams against the
others', and `prove_replays` steps that CUDA graphs replay against the same steps run eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..vectors.action import Action
from .bank import BankedVector
from .kernel_reference import NUMBERS
from .layout import Layout, UnsupportedModelError, first
from .plan import Span
from .request import RunOptions, Wants

if TYPE_CHECKING:
    from .observer import Observer

PROOF_VECTOR = "proof of graphs"
"""A random direction that is in the bank while graphs are proved; no id has spaces."""


class LayoutProof:
    """Watches one forward pass and says whether the layout is right.

    What is held against what: the stream after each layer is the one that enters the next, every layer runs
    once and in order, and the final norm of the last layer's stream is what the model returns to be
    unembedded.

    `kernels` are the modules that would read a KV cache. Before there is one they leave their output as it
    lies in memory, so they are made to give zeros.
    """

    def __init__(self, layout: Layout, model: Any, kernels: list[torch.nn.Module]) -> None:
        self.layout = layout
        self.prints: list[torch.Tensor] = []
        """Per layer that ran: sum and norm of its stream, [2] fp64."""
        self._seen: list[int] = []
        self._last: torch.Tensor | None = None
        self._broken = ""
        self._result: torch.Tensor | None = None
        self._handles = [
            *(layer.register_forward_hook(self._taker(index)) for index, layer in enumerate(layout.layers)),
            *(
                layer.register_forward_pre_hook(self._checker(index), with_kwargs=True)
                for index, layer in enumerate(layout.layers)
            ),
        ]

        # Not hooks: the Transformers backend calls the `forward` of a kernel by name, and vLLM that of a
        # model which it could compile.
        self._forwards = [(module, vars(module).get("forward")) for module in (*kernels, model)]
        for kernel in kernels:
            kernel.forward = _zeroing(kernel.forward)
        model.forward = self._taking(model.forward)

    def _taker(self, index: int) -> Callable[..., None]:
        def take(_module: Any, _args: Any, output: Any) -> None:
            try:
                hidden, residual = self.layout.leaving(output)
                self._last = (hidden if residual is None else hidden + residual).clone()
            except (TypeError, IndexError, AttributeError, RuntimeError):
                self._broken = self._broken or f"layer {index} gives another kind of output"
                self._seen.append(index)
                return
            wide = self._last.double()
            if not self._broken and not torch.isfinite(wide).all():
                self._broken = f"what leaves layer {index} are no numbers (infinite, or not defined)"
            self.prints.append(torch.stack([wide.sum(), wide.norm()]))
            self._seen.append(index)

        return take

    def _checker(self, index: int) -> Callable[..., None]:
        def check(_module: Any, args: Any, kwargs: Any) -> None:
            if index == 0 or self._last is None:
                return
            try:
                hidden = self.layout.entering(args, kwargs, index)
                if self.layout.form == "pair":
                    residual = self.layout.residual(args, kwargs, index)
                    hidden = hidden if residual is None else hidden + residual
                same = _same(hidden, self._last)
            except (TypeError, IndexError, ValueError, AttributeError, RuntimeError):
                same = False  # what stands there is no stream
            if not same:
                why = f"what enters layer {index} is not what layer {index - 1} left"
                self._broken = self._broken or why

        return check

    def _taking(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            self._result = first(output).clone()
            return output

        return run

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        for module, forward in self._forwards:
            if forward is None:
                del module.forward
            else:
                module.forward = forward

    def conclude(self) -> None:
        """Take the hooks off; raises UnsupportedModelError where the layout does not hold."""
        self.remove()
        problem = self._broken
        if self._seen != list(range(self.layout.count)):
            problem = f"the layers ran in the order {self._seen}"
        elif self._last is None or self._result is None:
            problem = "nothing came out"
        elif not problem:
            with torch.inference_mode():
                if not _same(self.layout.finish(self._last), self._result):
                    problem = "the final norm of the last layer's stream is not what the model goes on with"
        if problem:
            raise UnsupportedModelError(
                f"The layout of this model does not hold: {problem}. The rows would show wrong numbers, so "
                f"the model "
                "is not served. Describe it with --layout, or serve another."
            )


def _zeroing(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        # Those of state-space layers write into a tensor that they are given.
        written = result if result is not None else kwargs.get("output", args[-1] if args else None)
        for tensor in written if isinstance(written, tuple) else (written,):
            if isinstance(tensor, torch.Tensor):
                tensor.zero_()
        return result

    return run


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for the rounding of one addition and one norm in the model's own type."""
    if one.shape != other.shape:
        return False
    scale = float(other.float().abs().max()) + 1e-12
    return float((one.float() - other.float()).abs().max()) <= _tolerance(one.dtype) * scale


def ranks_agree(prints: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse ranks whose streams differ: rows come from the first rank alone, and stand for all.

    Args:
        prints: [ranks, layers, 2] fp32, sum and norm of each layer's stream on each rank.
        dtype: of the model.

    Raises:
        UnsupportedModelError: with the first rank and layer that differ from rank 0.
    """
    tolerance = _tolerance(dtype)
    scale = prints[:1, :, 1:].clamp_min(1e-12)
    differ = ((prints - prints[:1]).abs() / scale).amax(dim=-1) > tolerance
    if differ.any():
        rank, layer = (int(index) for index in differ.nonzero()[0])
        raise UnsupportedModelError(
            f"After layer {layer} the residual stream of rank {rank} is not that of rank 0, so that rows "
            "would show a part of it. Serve this model on one GPU, or another model."
        )


def prove_replays(
    observer: Observer, sizes: Sequence[int], run: Callable[[int, bool], object], hidden: int
) -> None:
    """Hold a replayed step of each recorded size against the same step run eagerly, steered and unsteered.

    A hook that was not recorded would leave zeros, or an earlier step's numbers, in the rows, and sliders
    without effect: nothing else would tell.

    Args:
        observer: the worker's, with its graphs recorded. Nothing of this is left in it.
        sizes: numbers of rows for which graphs were recorded.
        run: (rows, whether to replay) runs a forward pass of so many tokens, each time with the same inputs.
        hidden: the model's hidden size.

    Raises:
        UnsupportedModelError: with the first size and layer that differ.
    """
    registry = observer.registry
    layer = observer.layout.count // 2
    direction = torch.nn.functional.normalize(
        torch.randn(1, hidden, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    vector = BankedVector.build(
        {"label": "", "layers": [layer], "site": "residual", "reader": None},
        {"directions": direction, "lengths": torch.ones(1)},
        observer.bank.pool,
    )
    observer.add_vector(PROOF_VECTOR, vector)
    try:
        for size in sorted(sizes):
            eager, replayed = (_rehearsed(observer, size, run, replay) for replay in (False, True))
            _compare(eager, replayed, size, observer.dtype, proved_metrics(observer))
    finally:
        observer.remove_vector(PROOF_VECTOR)
        observer.registry = registry


def _rehearsed(
    observer: Observer, size: int, run: Callable[[int, bool], object], replay: bool
) -> torch.Tensor:
    """Numbers of one decoding step, every other row of it steered: [rows, `proved_metrics`, layers] fp32."""
    metrics = proved_metrics(observer)
    names = [f"{PROOF_VECTOR}-{row}" for row in range(size)]
    for row, name in enumerate(names):
        actions = (Action(PROOF_VECTOR, 0.5),) if row % 2 == 0 else ()
        observer.add(name, RunOptions(name, wants=Wants(metrics), actions=actions).to_wire())
    try:
        return observer.rehearse([Span(name, 1, 1) for name in names], lambda: run(size, replay))
    finally:
        for name in names:
            observer.remove(name)


def proved_metrics(observer: Observer) -> tuple[str, ...]:
    """What is held against each other: what a graph computes, and of what it keeps for later the routers'."""
    return (*NUMBERS, *(("router_entropy",) if "router_entropy" in observer.registry else ()))


def _compare(
    eager: torch.Tensor, replayed: torch.Tensor, size: int, dtype: torch.dtype, metrics: tuple[str, ...]
) -> None:
    # A layer without experts has no such number, on either side.
    of_routers = [index for index, name in enumerate(metrics) if name not in NUMBERS]
    for side in (eager, replayed):
        side[:, of_routers] = side[:, of_routers].nan_to_num(-1.0)
    scale = eager.abs().amax(dim=-1, keepdim=True).clamp_min(1e-6)
    # Not `error > tolerance`: what is NaN on one side is no smaller than anything.
    wrong = ~((eager - replayed).abs() <= _tolerance(dtype) * scale)
    if wrong.any():
        row, number, layer = (int(index) for index in wrong.nonzero()[0])
        raise UnsupportedModelError(
            f"A step that a CUDA graph replays for {size} runs is not what the same step is eagerly: "
            f"{metrics[number]} after layer {layer} of run {row} is {float(replayed[row, number, layer]):g} "
            f"and not {float(eager[row, number, layer]):g}. Start with --engine-mode eager."
        )


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-4 if dtype == torch.float32 else 4e-2
