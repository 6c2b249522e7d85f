"""From kept streams to numbers: the metrics of one step, and the sums for vector building.

Both passes end here: the eager one for each group of layers that its buffer holds, the graph pass once for
all layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..metrics.router import column_of, table
from .stream_sums import StreamSums
from .transfer import indices

if TYPE_CHECKING:
    import torch

    from ..metrics import Registry, View
    from ..metrics.router import RouterReading
    from .plan import StepPlan

logger = logging.getLogger(__name__)


@dataclass
class StepNumbers:
    """What a step's passes leave for the batch that leaves."""

    values: torch.Tensor
    """[rows, metrics, layers] fp32, NaN where nothing was computed."""
    head_rows: torch.Tensor | None
    """[runs] int64: the rows that the logit lens reads; None where nobody wants it."""
    picked: list[torch.Tensor] = field(default_factory=list)
    """Per layer of the logit lens [runs, hidden_size] fp32."""

    @classmethod
    def blank(cls, plan: StepPlan, layers: int, device: torch.device) -> StepNumbers:
        """Room for what a plan asks for."""
        import torch

        shape = (len(plan.keep), len(plan.metrics), layers)
        heads = plan.lens_heads
        return cls(
            values=torch.full(shape, torch.nan, device=device),
            head_rows=indices([head.row for head in heads], device) if heads else None,
        )


class Reducer:
    """Computes the metrics of a step; one that raises costs only those who asked for it."""

    def __init__(
        self, registry: Registry, sums: StreamSums, fail: Callable[[str, str, Exception, StepPlan], None]
    ) -> None:
        """
        Args:
            registry: the metrics.
            sums: takes the streams of runs that are summed.
            fail: called with (metric, beginning of a sentence, error, plan) where a built-in metric raises.
        """
        self.registry = registry
        self.sums = sums
        self.failed: dict[str, str] = {}
        """A person's own metrics that have raised, and what; they are not computed again."""
        self._fail = fail

    def of_router(self, plan: StepPlan) -> bool:
        """Whether a plan asks for anything that routers decide."""
        return any(self.registry[name].family == "router" for name in plan.metrics)

    def read_router(
        self, plan: StepPlan, layers: list[int], reading: RouterReading, values: torch.Tensor
    ) -> None:
        """What a plan asks of routers, into `values` [rows, metrics, layers of the model].

        Args:
            plan: of the step.
            layers: those that were read.
            reading: of all their tokens, layer by layer.
            values: the step's.
        """
        wanted = [
            (column, column_of(name))
            for column, name in enumerate(plan.metrics)
            if self.registry[name].family == "router"
        ]
        device = values.device
        rows, columns = indices([at for at, _ in wanted], device), indices([at for _, at in wanted], device)
        found = table(reading).view(len(layers), len(values), -1).index_select(-1, columns)
        values[:, rows[:, None], indices(layers, device)[None, :]] = found.permute(1, 2, 0)

    def reduce(self, plan: StepPlan, view: View, values: torch.Tensor, done: tuple[str, ...] = ()) -> None:
        """All metrics of the plan but those `done`, into `values` [rows, metrics, layers of the view]."""
        for column, name in enumerate(plan.metrics):
            compute = self.registry[name].compute
            if compute is None or name in done or name in self.failed:
                continue
            try:
                values[:, column] = compute(view).T
            except Exception as error:
                if self.registry[name].family != "own":
                    self._fail(name, f"The engine could not compute {name}", error, plan)
                    continue
                logger.exception("The metric %s is switched off", name)
                self.failed[name] = f"{type(error).__name__}: {error}"
        if plan.summed:
            self.sums.take(view, plan.summed)
