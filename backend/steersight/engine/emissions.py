"""What blocks of Python emit in a step (`steersight.live`), from the call to the rows of the step.

A block is an NNsight mediator and runs while the layers do, so what it emits belongs to the step under way
and leaves with it. Nothing here waits for the device: tensors are copied there, because what a block reads is
memory that later layers write over, and go to the host with the step's other numbers. A call that cannot be
taken raises in the block, so that whoever wrote it reads the sentence.

All ranks run a block and decide alike; only what the first of them has taken is sent.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import live

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from .plan import Block

    Value = float | NDArray[np.float32] | torch.Tensor
    """A number, or [n] fp32: on the host, or on the model's device."""
    Taken = dict[str, dict[tuple[str, int], Value]]
    """Run -> name and layer -> what was emitted in one step."""

MAX_NAMES = 16
"""Names that the blocks of one run may emit: each is a column of all its rows from then on."""
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Emitter(NamedTuple):
    """Whose block it is."""

    request_id: str
    """vLLM's"""
    run: str
    """The server's name of it."""


@dataclass(frozen=True)
class EmittedNow:
    """What belongs to the rows of one step, part of it still on the device; columns, an entry for each name
    and layer of each run."""

    entries: list[int] = field(default_factory=list)
    """Index of the run's block in the step; ascending."""
    names: list[str] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    """Each of the last row, or of the last rows of the block."""


class Emissions:
    """Takes what blocks emit, and gives it out when their step is complete."""

    def __init__(self, layers: int, device: torch.device) -> None:
        """
        Args:
            layers: of the model.
            device: of the model.
        """
        self._layers = layers
        self._device = device
        self._scheduled: Mapping[str, int] = {}
        """Request -> its tokens in the step under way; empty between two steps."""
        self._names: dict[str, set[str]] = {}
        """Request -> what it has emitted so far."""
        self._taken: Taken = {}

    def begin(self, scheduled: Mapping[str, int]) -> None:
        """A step begins, which computes so many tokens of each request."""
        self._scheduled = scheduled
        if self._taken:
            self._taken = {}  # of a step that was never sampled

    def forget(self, request_id: str) -> None:
        """A request is over."""
        self._names.pop(request_id, None)

    def emit(self, emitter: Emitter | None, name: str, layer: int | None, value: Any) -> None:
        """Take one value of a block.

        Args:
            emitter: whose block calls; None where no block of a run does.
            name, layer, value: as `live.emit` has them.

        Raises: as `live.emit`.
        """
        if emitter is None:
            raise RuntimeError(live.NOWHERE)
        tokens = self._scheduled.get(emitter.request_id)
        if tokens is None:
            raise RuntimeError(
                f"live.emit({name!r}, ...) came when the last pass of its run was over, so there is no row "
                "that it belongs to. Emit inside the loop over the passes, before tracer.result."
            )
        names = self._names.setdefault(emitter.request_id, set())
        self._check_name(name, names)
        place = self._layer(name, layer)
        number = _number(name, value, tokens, self._device)
        names.add(name)
        self._taken.setdefault(emitter.run, {})[name, place] = number

    @staticmethod
    def _check_name(name: object, names: set[str]) -> None:
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            raise ValueError(
                f"live.emit: {name!r:.80} is no name of a metric. Take 1 to 64 letters, digits, _ . : or -."
            )
        if name not in names and len(names) >= MAX_NAMES:
            raise ValueError(
                f"live.emit: {name!r} would be the {MAX_NAMES + 1}th metric of this run, and {MAX_NAMES} are "
                "all that it may have. Emit one name for several layers rather than a name for each."
            )

    def _layer(self, name: str, layer: object) -> int:
        if layer is None:
            return self._layers - 1
        if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
            raise TypeError(
                f"live.emit({name!r}, ...): the layer is {layer!r:.80}. Give its number, from 0, or None for "
                "the last."
            )
        if not 0 <= layer < self._layers:
            raise ValueError(
                f"live.emit({name!r}, ...): there is no layer {layer}; this model has 0 to "
                f"{self._layers - 1}."
            )
        return int(layer)

    def complete(self) -> Taken:
        """The step has been sampled: what was emitted in it. Nothing may be emitted until the next begins."""
        taken, self._taken, self._scheduled = self._taken, {}, {}
        return taken


def in_columns(taken: Taken, blocks: list[Block]) -> EmittedNow | None:
    """What a step's blocks have of rows.

    A pass may hold tokens whose rows are not sent: of a prompt whose rows nobody asked for, or computed again
    after a preemption. Those stand in front, so what is left belongs to the last rows. None where that is
    nothing.
    """
    found = EmittedNow()
    for entry, block in enumerate(blocks):
        rows = len(block.revisions)
        for (name, layer), value in taken.get(block.run, {}).items() if rows else ():
            found.entries.append(entry)
            found.names.append(name)
            found.layers.append(layer)
            found.values.append(value if isinstance(value, float) else value[-rows:])
    return found if found.entries else None


def _number(name: str, value: Any, tokens: int, device: torch.device) -> Value:
    """What is kept of a value whatever becomes of the memory it was read from, on the host or on `device`."""
    if isinstance(value, int | float):
        return _finite(value)
    kind = type(value).__name__
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(
            f"live.emit({name!r}, ...) was given a value of type {kind}. It takes a number, or a tensor with "
            "one for each token of the pass."
        )
    shape = tuple(value.shape)
    if len(shape) > 1 or (shape and shape[0] not in (1, tokens)):
        raise ValueError(
            f"live.emit({name!r}, ...) was given a tensor of shape {list(shape)}. It takes one number, or "
            f"one for each of the {tokens} tokens of the run in this pass. Reduce it first, as with "
            ".norm(dim=-1)."
        )
    import torch

    if isinstance(value, torch.Tensor) and not value.dtype.is_complex:
        value = value.detach().reshape(-1)
        if value.device.type != "cpu":
            # One that has no numbers to give (`meta`) fails here, and not when its step leaves.
            kept: torch.Tensor = value.to(device, torch.float32, copy=True)
            return kept
        return np.array(value.float().numpy(), dtype=np.float32)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        return np.array(value, dtype=np.float32).reshape(-1)
    raise TypeError(
        f"live.emit({name!r}, ...) was given {kind} of {value.dtype}. It takes real numbers; of complex ones "
        "take .real or .abs()."
    )


def _finite(value: float) -> float:
    """The number as a float; whole numbers have no largest."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(sys.float_info.max, 1 if value > 0 else -1)
