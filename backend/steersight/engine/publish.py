"""The batch that leaves: numbers of both passes, final logits and sampled tokens become one message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..metrics import LENS_METRICS
from ..metrics import logit_lens as readings
from .emissions import in_columns
from .outgoing import DeviceStep, LikelyTokens, NamedTokens
from .transfer import indices

if TYPE_CHECKING:
    import torch

    from .emissions import Taken
    from .layout import Layout
    from .plan import Block, StepPlan
    from .reduce import Reducer, StepNumbers


class Publisher:
    """Reads a step's final logits, and its logit lens where a run wants it."""

    def __init__(self, layout: Layout, reducer: Reducer, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype` is the model's, in which streams are unembedded."""
        self._layout = layout
        self._reducer = reducer
        self._device = device
        self._dtype = dtype

    def read_logit_lens(
        self, plan: StepPlan, numbers: StepNumbers, tokens: torch.Tensor, *, publishes: bool
    ) -> NamedTokens | None:
        """All layers of all runs that want it, in one product with the unembedding.

        Args:
            plan: of the step.
            numbers: the step's; the logit lens's metrics are written there.
            tokens: [requests, 1], what was sampled.
            publishes: False on ranks that only take part in the product, which all compute together.
        """
        import torch

        head_rows = numbers.head_rows
        if head_rows is None:
            return None
        heads = plan.lens_heads
        stream = torch.stack(numbers.picked)  # [lens layers, runs, hidden_size]
        finished = self._layout.finish(stream.view(-1, stream.shape[-1]).to(self._dtype))
        logits = self._layout.unembed(finished)  # every rank takes part, one gets the whole vocabulary
        if logits is None or not publishes:
            return None
        requests = indices([head.request for head in heads], self._device)
        most = max(head.wants.lens_top for head in heads)
        reading = readings.read(
            logits.view(*stream.shape[:2], -1), tokens.view(-1).index_select(0, requests).long(), most
        )
        at = indices(plan.lens_layers, self._device)
        for name, found in zip(LENS_METRICS, (reading.entropy, reading.probability, reading.kl), strict=True):
            if name in plan.metrics:
                column = numbers.values[:, plan.metrics.index(name)]
                column[head_rows[:, None], at[None, :]] = found.T
        return NamedTokens(
            entries=[head.entry for head in heads],
            layers=plan.lens_layers,
            ids=reading.top_ids.transpose(0, 1),
            probabilities=reading.top_probabilities.transpose(0, 1),
        )

    def step(
        self,
        plan: StepPlan,
        numbers: StepNumbers | None,
        named: NamedTokens | None,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        emitted: Taken | None = None,
    ) -> DeviceStep:
        """Everything that leaves of a step: one copy to the host for each kind of number.

        Args:
            plan: of the step.
            numbers: the step's; None where nobody was observed.
            named: what the logit lens named.
            logits: [requests, vocab_size], the model's own.
            tokens: [requests, 1], what was sampled.
            emitted: by blocks of Python, as `Emissions.complete` gives it.
        """
        import torch

        blocks = [*plan.blocks, *plan.bare]
        requests = indices([block.request for block in blocks], self._device)
        drawn = tokens.view(-1).index_select(0, requests)
        wants_entropy = numbers is not None and any(head.wants.entropy for head in plan.heads)
        # In the order of the batch, so that no row of logits is copied to be read.
        final = readings.read_final(logits, tokens.view(-1).long(), entropy=wants_entropy)
        entropy = None
        if numbers is not None and final.entropy is not None:
            heads = [head for head in plan.heads if head.wants.entropy]
            entropy = torch.full((len(numbers.values),), torch.nan, device=self._device)
            at = indices([head.row for head in heads], self._device)
            asked = indices([head.request for head in heads], self._device)
            entropy[at] = final.entropy.index_select(0, asked)
        registry = self._reducer.registry
        return DeviceStep(
            blocks=blocks,
            observed=len(plan.blocks),
            drawn=drawn,
            logprobs=final.logprobs.index_select(0, requests),
            ranks=final.ranks.index_select(0, requests),
            metrics=plan.metrics,
            layers=self._layout.count,
            values=None if numbers is None else registry.to_half(numbers.values, plan.metrics),
            entropy=entropy,
            named=named,
            likely=self._likely(blocks, logits, final.log_z),
            emitted=in_columns(emitted, blocks) if emitted else None,
            failed=dict(self._reducer.failed),
        )

    def _likely(self, blocks: list[Block], logits: torch.Tensor, log_z: torch.Tensor) -> LikelyTokens | None:
        """What could have been written instead, of all runs that want it at once; nothing for the others."""
        asking = [(entry, block) for entry, block in enumerate(blocks) if block.alternatives]
        if not asking:
            return None
        requests = indices([block.request for _, block in asking], self._device)
        ids, logprobs = readings.read_alternatives(
            logits.index_select(0, requests), log_z.index_select(0, requests),
            max(block.alternatives for _, block in asking),
        )  # fmt: skip
        return LikelyTokens([entry for entry, _ in asking], ids, logprobs)
