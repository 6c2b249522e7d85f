"""A timeout that counts only time in which this process was awake."""

from __future__ import annotations

import asyncio
import time

import pytest

from steersight.patience import Patience


async def test_who_does_not_answer_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Patience(0.2) as patience:
            await asyncio.Event().wait()
    assert 0.15 < time.monotonic() - began < 2
    assert patience.waited >= 0.2


async def test_an_answer_that_came_while_this_process_slept_counts() -> None:
    """`asyncio.timeout` gives up here: its deadline is behind it when the loop wakes up."""
    answer = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(0.02, time.sleep, 0.6)
    loop.call_later(0.1, answer.set)
    async with Patience(0.3) as patience:
        await answer.wait()
    assert patience.waited < 0.3


async def test_only_its_own_waiting_ends_it() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Patience(5):
            raise ValueError("mine")
    waiting = asyncio.create_task(_wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with Patience(0.05):
        pass
    await asyncio.sleep(0.1)  # a tick that was left behind would end this task now


async def _wait() -> None:
    async with Patience(5):
        await asyncio.Event().wait()
