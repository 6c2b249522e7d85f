"""A step on its way from the worker's device to the server.

The copies to the host are started as soon as the step is complete and may still be under way when it is
queued: the sender thread waits for them, the forward pass does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .emissions import EmittedNow
from .emitted import Emitted
from .step import BARE, NO_TOKEN, Alternatives, Guesses, Step
from .transfer import to_host

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from .plan import Block

_Wait = Callable[[], "NDArray[Any]"]


@dataclass(frozen=True)
class NamedTokens:
    """The logit lens's likeliest tokens behind the last rows of some blocks, on the device."""

    entries: list[int]
    """[runs] indices of blocks"""
    layers: list[int]
    ids: torch.Tensor
    """[runs, layers, k] int32, likeliest first"""
    probabilities: torch.Tensor
    """[runs, layers, k] fp32"""


@dataclass(frozen=True)
class LikelyTokens:
    """The final distribution's likeliest tokens behind the last rows of some blocks, on the device."""

    entries: list[int]
    """[runs] indices of blocks"""
    ids: torch.Tensor
    """[runs, k] int32, likeliest first"""
    logprobs: torch.Tensor
    """[runs, k] fp32"""


@dataclass
class DeviceStep:
    """What one step produced; tensors of the worker's device."""

    blocks: list[Block]
    """Those with numbers first."""
    observed: int
    """Number of blocks with numbers."""
    drawn: torch.Tensor
    """[blocks] the sampled tokens"""
    logprobs: torch.Tensor
    """[blocks] fp32"""
    ranks: torch.Tensor
    """[blocks] int32"""
    metrics: list[str]
    layers: int
    values: torch.Tensor | None
    """[rows, metrics, layers] fp16 in the form that clients get; None when no block has numbers"""
    entropy: torch.Tensor | None
    """[rows] fp32, NaN where not known; None when nobody asked"""
    named: NamedTokens | None
    likely: LikelyTokens | None = None
    emitted: EmittedNow | None = None
    failed: dict[str, str] = field(default_factory=dict)
    """Metrics that are switched off, and why."""
    _lost: bool = False

    def __post_init__(self) -> None:
        import torch

        # One copy for what every entry has: three rows of 32 bits.
        columns = torch.stack([self.drawn.int(), self.ranks.int(), self.logprobs.float().view(torch.int32)])
        self._columns = to_host(columns)
        self._values = _optional(self.values)
        self._entropy = _optional(None if self.entropy is None else self.entropy.half())
        named = self.named
        self._ids = _optional(None if named is None else named.ids)
        self._probabilities = _optional(None if named is None else named.probabilities.half())
        self._likely = None
        if (likely := self.likely) is not None:
            self._likely = likely.entries, to_host(likely.ids), to_host(likely.logprobs)
        self._emitted = None if self.emitted is None else _OnTheirWay(self.emitted)

    @property
    def runs(self) -> list[str]:
        """Names of those that have a part in it."""
        return [block.run for block in self.blocks]

    @property
    def numbers(self) -> int:
        """Bytes of what may be left out."""
        if self._lost:
            return 0
        size = 0 if self.values is None else 2 * self.values.numel()
        size += 0 if self.entropy is None else 2 * self.entropy.numel()
        size += 0 if self.named is None else 6 * self.named.ids.numel()
        size += 0 if self._emitted is None else self._emitted.nbytes
        return size + (0 if self.likely is None else 8 * self.likely.ids.numel())

    def leave_numbers_out(self) -> None:
        """Only positions, revisions and tokens are to travel; its tensors are let go."""
        self._lost = self.numbers > 0
        self.values = self.entropy = self.named = self.likely = None
        self.emitted = self._emitted = None
        self._values = self._entropy = self._ids = self._probabilities = self._likely = None

    def arrive(self) -> Step:
        """Wait for the copies, and put the step into columns."""
        blocks = self.blocks
        counts = np.array([len(block.revisions) for block in blocks], dtype=np.int32)
        first = np.full(len(blocks), BARE, dtype=np.int32)
        if self._values is not None:
            first[: self.observed] = np.cumsum(counts[: self.observed]) - counts[: self.observed]
        tokens, ranks, logprobs = self._columns()
        tokens = np.where([block.samples for block in blocks], tokens, NO_TOKEN).astype(np.int32)
        return Step(
            runs=[block.run for block in blocks],
            starts=np.array([block.start for block in blocks], dtype=np.int32),
            counts=counts,
            first=first,
            revisions=np.array([rev for block in blocks for rev in block.revisions], dtype=np.int32),
            tokens=tokens,
            logprobs=logprobs.view(np.float32),
            ranks=ranks,
            watches=np.array([block.watch for block in blocks], dtype=np.int32),
            metrics=[] if self._values is None else self.metrics,
            layers=self.layers,
            values=np.empty((0, 0, self.layers), dtype="<f2") if self._values is None else self._values(),
            entropy=None if self._entropy is None else self._entropy(),
            guesses=self._guesses(),
            alternatives=self._alternatives(),
            emitted=None if self._emitted is None else self._emitted.arrive(),
            failed=self.failed,
            lost=self._lost,
        )

    def _guesses(self) -> Guesses | None:
        if self.named is None or self._ids is None or self._probabilities is None:
            return None
        entries = np.array(self.named.entries, dtype=np.int32)
        return Guesses(entries, self.named.layers, self._ids(), self._probabilities())

    def _alternatives(self) -> Alternatives | None:
        if self._likely is None:
            return None
        entries, ids, logprobs = self._likely
        return Alternatives(np.array(entries, dtype=np.int32), ids(), logprobs())


class _OnTheirWay:
    """What was emitted in a step: all that lies on the device comes in one copy."""

    def __init__(self, emitted: EmittedNow) -> None:
        import torch

        self._emitted = emitted
        on_device = [value for value in emitted.values if isinstance(value, torch.Tensor)]
        self._copied = to_host(torch.cat(on_device)) if on_device else None
        self._counts = [1 if isinstance(value, float) else len(value) for value in emitted.values]
        self._host = [None if isinstance(value, torch.Tensor) else value for value in emitted.values]
        self.nbytes = 2 * sum(self._counts) + 16 * len(self._counts)
        """On the wire."""

    def arrive(self) -> Emitted:
        """Wait for the copy, and put all into columns."""
        copied = np.empty(0) if self._copied is None else self._copied()
        numbers = np.empty(sum(self._counts), dtype=np.float64)
        at = 0
        for count, value in zip(self._counts, self._host, strict=True):
            if value is None:
                numbers[at : at + count], copied = copied[:count], copied[count:]
            else:
                numbers[at : at + count] = value
            at += count
        names = sorted(set(self._emitted.names))
        column = {name: index for index, name in enumerate(names)}
        return Emitted(
            names=names,
            entries=np.array(self._emitted.entries, dtype=np.int32),
            columns=np.array([column[name] for name in self._emitted.names], dtype=np.int32),
            layers=np.array(self._emitted.layers, dtype=np.int32),
            counts=np.array(self._counts, dtype=np.int32),
            values=_in_half(numbers),
        )


def _in_half(numbers: NDArray[np.float64]) -> NDArray[np.float16]:
    """As clients get them: beyond the range of half precision its largest number, NaN where not finite."""
    largest = float(np.finfo(np.float16).max)
    found = np.clip(numbers, -largest, largest).astype("<f2")
    found[~np.isfinite(numbers)] = np.nan
    return found


def _optional(tensor: torch.Tensor | None) -> _Wait | None:
    return None if tensor is None else to_host(tensor)
