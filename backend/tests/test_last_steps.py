"""A reply's end overtakes its last steps where the server has fallen behind: they are waited for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from steersight.engine import generation
from steersight.engine.generation import _follow, _Live
from steersight.engine.reply import Ends, Entry, Reply

from .test_reply import steps, tokens

IDS = [3, 4, 5, 6, 7, 8]
PATIENCE = 0.2


async def followed(come: int, pause: float, caught_up_at: float = math.inf) -> list[Entry]:
    """What a run gets whose end is known at once, and of whose steps so many come, one after each pause."""
    life = SimpleNamespace(caught_up_at=caught_up_at)
    taken: list[Entry] = []
    live = _Live(Reply(5, Ends(frozenset(), len(IDS))), taken.append)

    async def outputs() -> AsyncGenerator[Any, None]:
        last = SimpleNamespace(token_ids=IDS, finish_reason="length", stop_reason=None)
        yield SimpleNamespace(outputs=[last], prompt_logprobs=None, num_cached_tokens=0)

    following = asyncio.create_task(_follow(live, outputs(), life))
    for entry in steps(IDS)[:come]:
        await asyncio.sleep(pause)
        live.release(live.reply.take(entry))
    await following
    assert tokens(taken) == IDS
    return taken


async def test_steps_that_come_one_by_one_are_all_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "LAST_STEPS_SECONDS", PATIENCE)
    taken = await followed(len(IDS), PATIENCE / 3)
    assert sum(len(entry.revisions) for entry in taken) == 5 + len(IDS) - 1, "rows were given up"


async def test_a_server_that_is_behind_with_the_steps_of_others_gives_up_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "LAST_STEPS_SECONDS", PATIENCE)
    taken = await followed(len(IDS), 2 * PATIENCE, caught_up_at=0.0)
    assert sum(len(entry.revisions) for entry in taken) == 5 + len(IDS) - 1, "rows were given up"


async def test_steps_that_never_come_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "LAST_STEPS_SECONDS", PATIENCE)
    taken = await followed(3, 0.0)
    assert sum(len(entry.revisions) for entry in taken) == 5 + 2
