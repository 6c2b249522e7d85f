"""The leak gauges say what an engine holds while it holds it; else their return to 0 would mean nothing."""

from __future__ import annotations

import asyncio

import pytest

from steersight.engine.request import RunOptions, RunRequest, Wants

from .conftest import Server

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


async def held_by(server: Server) -> list[int]:
    held = await server.engine.held()
    return [held[who] for who in ("vllm", "nnsight", "observer")]


async def test_a_run_is_held_by_vllm_nnsight_and_the_observer_until_it_ends(server: Server) -> None:
    begun = asyncio.Event()
    options = RunOptions("held", wants=Wants(("residual_norm",)))
    request = RunRequest(list(range(10, 20)), {"max_tokens": 200, "ignore_eos": True}, options)
    run = asyncio.create_task(server.engine.generate(request, lambda _entry: begun.set()))
    await asyncio.wait([run, asyncio.ensure_future(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert not run.done(), "it has ended before it began"
    assert min(await held_by(server)) >= 1
    run.cancel()
    await asyncio.wait([run])
    async with asyncio.timeout(60):
        while any(await held_by(server)):
            pass
