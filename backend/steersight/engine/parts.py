"""Which module's output is what attention adds to the stream, found on one forward pass and proved by it.

A layer's update is the sum of two parts where the outputs of two of its modules add up to it: the first of
them is, or comes behind, the module that reads the KV cache, and is attention's; the other one is the MLP's.
Where a layer scales its parts, or normalises the stream itself, no two add up to the update, and the model
does without the split. Before there is a KV cache the kernels that would read it have nothing to give, so
they are made to give numbers of some size: a part that is 0 could be any module's.

Numbers of half precision are rounded each time the stream is added to. What is compared is therefore held
against that rounding, and counts only where each part by itself is far above it: else leaving it out would go
unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from .layout import Layout, part

FAR = 8.0
"""So many times the rounding a number of a part has to be to count."""
ENOUGH = 0.25
"""So much of a part has to count, in half of the layers at least."""
AGREES = 0.99
"""So many of the numbers have to be the sum within twice the rounding; products in half precision, which add
up their terms in some order, leave a few outside."""


@dataclass
class _Seen:
    """One layer in the pass; all tensors [tokens, hidden_size] fp32."""

    entering: torch.Tensor | None = None
    leaving: torch.Tensor | None = None
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    """Of its modules, by name, in the order in which they ran."""
    reads: str = ""
    """The module that holds the kernel."""


class PartsSearch:
    """Watches one forward pass of a model whose layout is proved."""

    def __init__(self, layout: Layout, kernels: list[torch.nn.Module]) -> None:
        """
        Args:
            layout: of the model.
            kernels: its modules that read the KV cache by attention; a layer has one.
        """
        self._layout = layout
        self._seen = [_Seen() for _ in layout.layers]
        self._handles: list[Any] = []
        self._forwards = [(kernel, vars(kernel).get("forward")) for kernel in kernels]
        reading = set(kernels)
        for kernel in kernels:
            kernel.forward = _giving_something(kernel.forward)
        for index, layer in enumerate(layout.layers):
            seen = self._seen[index]
            self._handles += [
                layer.register_forward_pre_hook(self._enters(index), with_kwargs=True),
                layer.register_forward_hook(self._leaves(index)),
            ]
            for name, module in layer.named_children():
                if not seen.reads and any(inner in reading for inner in module.modules()):
                    seen.reads = name
                self._handles.append(module.register_forward_hook(self._gives(index, name)))

    def _enters(self, index: int) -> Callable[..., None]:
        def see(_module: Any, args: Any, kwargs: Any) -> None:
            hidden = self._layout.entering(args, kwargs, index).float()
            if self._layout.form == "pair":
                residual = self._layout.residual(args, kwargs, index)
                hidden = hidden if residual is None else hidden + residual.float()
            self._seen[index].entering = hidden.clone()

        return see

    def _leaves(self, index: int) -> Callable[..., None]:
        def see(_module: Any, _args: Any, output: Any) -> None:
            hidden, residual = self._layout.leaving(output)
            self._seen[index].leaving = hidden.float() + (0 if residual is None else residual.float())

        return see

    def _gives(self, index: int, name: str) -> Callable[..., None]:
        def see(_module: Any, _args: Any, output: Any) -> None:
            try:
                given = part(output)
            except (AttributeError, TypeError, IndexError):
                return
            if given.is_floating_point():
                self._seen[index].outputs[name] = given.float().clone()

        return see

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        for kernel, forward in self._forwards:
            if forward is None:
                del kernel.forward
            else:
                kernel.forward = forward

    def found(self, dtype: torch.dtype) -> str | None:
        """The name in each layer of the module whose output attention adds; None where the update of some
        layer is no sum of two, or nothing could be told.

        Args:
            dtype: in which the model computes.
        """
        sums = [_sums(seen, dtype) for seen in self._seen]
        for name in dict.fromkeys(name for found in sums for name in found):
            if all(name in found for found in sums) and 2 * sum(found[name] for found in sums) >= len(sums):
                return name
        return None


def _sums(seen: _Seen, dtype: torch.dtype) -> dict[str, bool]:
    """Modules of a layer that may be attention's part, and whether that could be told from rounding."""
    entering, leaving = seen.entering, seen.leaving
    if entering is None or leaving is None or not seen.reads:
        return {}
    outputs = {name: one for name, one in seen.outputs.items() if one.shape == leaving.shape}
    order = list(seen.outputs)
    update = leaving - entering
    rounding = torch.finfo(dtype).eps * (entering.abs() + leaving.abs()) + 1e-12
    found: dict[str, bool] = {}
    for name, attention in outputs.items():
        if order.index(name) < order.index(seen.reads):
            continue
        for other, mlp in outputs.items():
            if order.index(other) <= order.index(name):
                continue
            slack = rounding + torch.finfo(dtype).eps * (attention.abs() + mlp.abs())
            if ((attention + mlp - update).abs() <= 2 * slack).float().mean() < AGREES:
                continue
            told = all((one.abs() > FAR * slack).float().mean() >= ENOUGH for one in (attention, mlp))
            found[name] = found.get(name, False) or bool(told)
    return found


def _giving_something(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            numbers = torch.arange(result.numel(), device=result.device, dtype=torch.float32)
            result.copy_(torch.sin(numbers * 12.9898).view_as(result).to(result.dtype))
        return result

    return run
