"""Errors that can be planted in what keeps the cache of prefixes right, in each process of an engine.

vLLM's own door to code of others is a plugin: an installed package's entry point that each of its processes
calls when it begins. `as_a_plugin` makes one of `plant`. Nothing is planted but what the file that
`STEERSIGHT_PLANTED` names says, at this moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FILE = "STEERSIGHT_PLANTED"
NAMES = ("keys", "feed", "no ledger")


def planted(name: str) -> bool:
    return name in Path(os.environ[FILE]).read_text().splitlines()


def plant() -> None:
    """Called by vLLM in each of its processes."""
    from steersight.engine.ledger import BlockLedger
    from steersight.engine.run_state import RunStates
    from steersight.engine.scheduling import DeedKeys, Deeds

    keys_of, steered, read = DeedKeys.of, Deeds.steered, BlockLedger.read

    def without_deeds(keys: DeedKeys, request: Any) -> list[Any]:
        known = keys.states
        if planted("keys"):
            keys.states = RunStates()
        try:
            return keys_of(keys, request)
        finally:
            keys.states = known

    def not_told(*args: Any, **kwargs: Any) -> None:
        if not planted("feed"):
            steered(*args, **kwargs)

    def believed(*args: Any, **kwargs: Any) -> None:
        if not planted("no ledger"):
            read(*args, **kwargs)

    DeedKeys.of, Deeds.steered, BlockLedger.read = (  # type: ignore[method-assign]
        without_deeds, not_told, believed
    )  # fmt: skip


@contextmanager
def as_a_plugin(folder: Path) -> Iterator[None]:
    """Engines that are started meanwhile can have errors planted; `folder` is empty."""
    package = folder / "planted-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[vllm.general_plugins]\nplanted = {__name__}:plant\n")
    (folder / "planted").write_text("")
    os.environ[FILE] = str(folder / "planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@contextmanager
def errors(*names: str) -> Iterator[None]:
    """Plant these for a while."""
    assert set(names) <= set(NAMES)
    file = Path(os.environ[FILE])
    file.write_text("\n".join(names))
    try:
        yield
    finally:
        file.write_text("")
