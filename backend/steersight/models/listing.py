"""What `steersight models` and `GET /api/models` say: each checkpoint that is here, and whether it fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import machine
from ..engine.options import EngineOptions
from .fit import Fit, Room, fit
from .here import Here
from .shape import Shape


def room_now(freed: int = 0, freed_share: float = 0.0) -> Room:
    """What this machine has now, for the engine that is installed.

    Args:
        freed: bytes of memory that would be free besides, if the engine that runs now were ended.
        freed_share: of each GPU's memory, the share that would be.
    """
    if not machine.has_cuda_engine():
        return Room(False, machine.memory() + freed)
    gpus = tuple(
        replace(gpu, free=min(gpu.total, gpu.free + int(freed_share * gpu.total)))
        for gpu in machine.gpu_memory()
    )
    return Room(True, machine.memory() + freed, gpus)


def described(one: Here, found: Fit) -> dict[str, Any]:
    """A checkpoint that is here, for scripts and for the wire."""
    return {
        "id": one.id, "where": one.where, "size_bytes": one.size, **shape_map(one.shape),
        "problem": one.problem or None, **fit_map(found),
    }  # fmt: skip


def shape_map(shape: Shape) -> dict[str, Any]:
    """A shape, for scripts and for the wire."""
    return {
        "parameters": shape.parameters, "dtype": shape.dtype, "quantised": shape.quantised or None,
        "layers": shape.layers, "context": shape.context,
    }  # fmt: skip


def fit_map(found: Fit) -> dict[str, Any]:
    """An estimate, for scripts and for the wire."""
    return {
        "fits": found.fits, "needs_bytes": found.needs, "on": found.on, "ranks": found.ranks,
        "why": found.why or None,
    }  # fmt: skip


def here_with_fit(one: Here, room: Room, options: EngineOptions, *, any_ranks: bool = False) -> Fit:
    """As `fit`; one that cannot be served at all fits nowhere."""
    found = fit(one.shape, room, options, any_ranks=any_ranks)
    return Fit(False, found.needs, found.on, found.ranks, one.problem) if one.problem else found
