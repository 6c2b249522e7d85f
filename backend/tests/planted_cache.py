"""Own metrics each of which, when it is asked for, takes away something that keeps the cache of prefixes
right, in the engine's process and until `plant_nothing` is asked for.

As a file that `--metrics` names, because that is the one door to code of ours in that process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch

from steersight.engine.ledger import BlockLedger
from steersight.engine.run_state import RunStates
from steersight.metrics import View
from steersight.metrics.own import metric

usual: dict[tuple[type, str], Callable[..., Any]] = {}


def plant(owner: type, name: str, instead: Callable[..., Any]) -> None:
    usual.setdefault((owner, name), getattr(owner, name))
    setattr(owner, name, instead)


def planted(name: str, act: Callable[[], None]) -> Any:
    @metric(id=f"plant_{name}", label=name, description="Not to be asked for.")
    def numbers(residuals: torch.Tensor, context: View) -> torch.Tensor:
        if multiprocessing.parent_process() is not None:
            act()
        return residuals[..., 0]

    return numbers


def leave_deeds_out_of_keys() -> None:
    from steersight.engine.scheduling import DeedKeys

    def of(keys: Any, request: Any) -> list[Any]:
        known, keys.states = keys.states, RunStates()
        try:
            found: list[Any] = usual[DeedKeys, "of"](keys, request)
        finally:
            keys.states = known
        return found

    plant(DeedKeys, "of", of)


def feed_after_a_change() -> None:
    from steersight.engine.scheduling import Deeds

    plant(Deeds, "steered", lambda *_, **__: None)


def believe_the_keys() -> None:
    plant(BlockLedger, "read", lambda *_, **__: None)


def check_the_keys() -> None:
    if (BlockLedger, "read") in usual:
        plant(BlockLedger, "read", usual[BlockLedger, "read"])


def nothing() -> None:
    for (owner, name), as_it_was in usual.items():
        setattr(owner, name, as_it_was)


keys = planted("keys", leave_deeds_out_of_keys)
feed = planted("feed", feed_after_a_change)
no_ledger = planted("no_ledger", believe_the_keys)
ledger = planted("ledger", check_the_keys)
clean = planted("nothing", nothing)
