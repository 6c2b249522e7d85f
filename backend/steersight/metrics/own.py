"""A person's own metrics: a Python file named with `--metrics`, or an installed package's entry point.

The file is code of whoever starts the server, run in the server's worker; nothing of it ever comes from a
client. It declares functions:

    from steersight.metrics.own import metric

    @metric(id="mean", label="Mean", description="Mean of the stream's components.")
    def mean(residuals, context):
        return residuals.mean(dim=-1)

`residuals` is [layers, tokens, hidden_size] fp32 on the model's device: the residual stream after each of
some neighbouring layers, for all observed tokens of all runs of one engine step. `context` is the `View` that
they come from: `first` layer, `below`, `written`, and `runs`, which says whose tokens they are. The function
gives numbers, [layers, tokens], or, where it declares `fields`, a map from each field's name to such numbers;
each field is a metric of its own then, `<id>.<field>`. A function that raises or gives another shape is
switched off, with its error shown; the run and all others go on.

A package names its functions' module in the entry point group `steersight.metrics`.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..python_files import import_file
from .registry import Metric, Scale

if TYPE_CHECKING:
    import torch

    from .view import View

GROUP = "steersight.metrics"
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")

OwnFunction = Callable[["torch.Tensor", "View"], Any]


class OwnMetricError(ValueError):
    """A metrics file that cannot be used; the message is a sentence that says why."""


def metric(
    *,
    id: str,  # noqa: A002 - the name it has everywhere
    label: str,
    description: str,
    unit: str = "",
    transform: Literal["linear", "log2"] = "linear",
    scale: Scale | None = None,
    cost: str = "one call for all layers of a step",
    fields: Mapping[str, str] | None = None,
) -> Callable[[OwnFunction], OwnFunction]:
    """Declare a function of this file as a metric; see the module's text.

    Args:
        fields: for a function that gives several numbers, name -> label.
    """
    if not _ID.match(id):
        raise OwnMetricError(f"The id {id!r} is not allowed; use 1 to 64 letters, digits or any of _ . -")

    def declare(function: OwnFunction) -> OwnFunction:
        shared = _Once(function)
        named: list[tuple[str | None, str]] = [*(fields or {}).items()] or [(None, "")]
        function.__dict__["steersight_metrics"] = [
            Metric(
                id=id if name is None else f"{id}.{name}",
                label=label if name is None else f"{label}: {said}",
                description=description, unit=unit, transform=transform, scale=scale or Scale("sequential"),
                family="own", cost=cost, compute=shared.reader(name),
            )
            for name, said in named
        ]  # fmt: skip
        return function

    return declare


class _Once:
    """Calls the function once per view, although each of its fields asks."""

    def __init__(self, function: OwnFunction) -> None:
        self._function = function
        self._view: View | None = None
        self._result: Any = None

    def reader(self, field: str | None) -> Callable[[View], torch.Tensor]:
        def compute(view: View) -> torch.Tensor:
            if self._view is not view:
                self._view, self._result = view, self._function(view.after, view)
            result = self._result
            if field is not None:
                if not isinstance(result, Mapping) or field not in result:
                    raise OwnMetricError(f"It declares the field {field!r} and did not give it.")
                result = result[field]
            return checked(result, view)

        return compute


def checked(result: Any, view: View) -> torch.Tensor:
    """The numbers of a metric as they must be, or OwnMetricError."""
    import torch

    shape = (view.count, view.after.shape[1])
    if not isinstance(result, torch.Tensor) or tuple(result.shape) != shape:
        found = list(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise OwnMetricError(f"It gave {found} and not a tensor [layers, tokens], here {list(shape)}.")
    return result


def load_own(files: list[str]) -> list[Metric]:
    """The metrics of these files and of all installed entry points, in that order.

    Raises OwnMetricError with a sentence when a file cannot be read or declares nothing.
    """
    modules = [(file, import_file(Path(file), "--metrics", OwnMetricError)) for file in files]
    modules.extend((entry.value, entry.load()) for entry in importlib.metadata.entry_points(group=GROUP))
    found: list[Metric] = []
    for name, module in modules:
        mine = [one for value in vars(module).values() for one in getattr(value, "steersight_metrics", [])]
        if not mine:
            raise OwnMetricError(f"{name} declares no metric. Put @metric(...) above a function of it.")
        found.extend(mine)
    return found
