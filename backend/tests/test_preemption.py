"""A KV cache that is too small for the batch: vLLM throws runs out and computes them again.

The odd engine's cache holds 1,024 tokens, where the runs come to need 1,440. The server's own
admission would not let them in; the engine is asked directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steersight.engine.reply import Entry
from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.engine.service import EngineService
from steersight.vectors.action import Action

from .conftest import Server
from .odd import BLOCK, BLOCKS, ODD_VECTORS, odd_vector
from .schedules import METRICS, Reply

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

TOKENS = 200
RUNS = 6


def prompt(run: int) -> list[int]:
    return [3 + (7 * run + 5 * at) % 250 for at in range(40)]


async def preemptions(engine: EngineService) -> int:
    """How often vLLM has thrown a run out of its cache, as the worker was told."""
    return (await engine.held())["preempted"]


async def generate(
    engine: EngineService,
    run: int,
    actions: list[Action],
    back: Callable[[str], Awaitable[None]] | None = None,
) -> Reply:
    """One run; `back` is called once its reply has 20 tokens."""
    reply, name = Reply(), f"run-{run}"
    options = RunOptions(name, wants=Wants(tuple(METRICS)), actions=tuple(actions))
    sampling = {"max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
    going_back: list[asyncio.Task[None]] = []

    def take(entry: Entry) -> None:
        reply.take(entry)
        if back is not None and len(reply.ids) == 20:
            going_back.append(asyncio.ensure_future(back(name)))

    await engine.generate(RunRequest(prompt(run), sampling, options), take)
    await asyncio.gather(*going_back)
    return reply


async def test_preempted_runs_are_what_they_would_have_been(odd_server: Server) -> None:
    """Unsteered, steered throughout, and steered by a vector that is deleted before the run comes back."""
    engine = odd_server.engine
    assert engine.capacity_tokens == (BLOCKS - 1) * BLOCK
    starts = [[], [Action("stays", 0.2)], [Action("gone", 0.3)], [Action("gone", -0.3)], [], []]
    back: list[str] = []

    async def set_to_0_and_delete(name: str) -> None:
        await engine.steer(name, 1, [])
        back.append(name)
        if len(back) == 2:
            # Nobody is steered by it any more: it goes, although both runs may have to be computed again.
            await engine.offer.remove("gone")
            assert await preemptions(engine) == before, "the deletion came after the first preemption"

    before = await preemptions(engine)
    together = await asyncio.gather(
        *(
            generate(engine, run, starts[run], set_to_0_and_delete if run in (2, 3) else None)
            for run in range(RUNS)
        )
    )
    happened = await preemptions(engine) - before
    print(f"{happened} preemptions")  # noqa: T201
    assert happened >= 2, "the cache was not too small after all"
    assert len(back) == 2
    assert "gone" not in engine.offer.vectors
    held = await engine.held()
    assert (held["vllm"], held["nnsight"], held["observer"]) == (0, 0, 0)

    # Its id is free, and the worker has kept nothing of the first.
    await engine.offer.add(odd_vector("gone", ODD_VECTORS["gone"]), Path("gone.safetensors"))
    for run, disturbed in enumerate(together):
        positions = range(len(prompt(run)) + TOKENS - 1)
        assert sorted(disturbed.revs) == list(positions), f"run {run}: rows are missing"
        revs = [disturbed.revs[position] for position in positions]
        assert revs == sorted(revs), f"run {run}: a revision came back"
        assert set(revs) == ({0, 1} if run in (2, 3) else {0}), f"run {run}: other revisions"
        # One at a time there is room. The slider went to 0 where the rows say that it did.
        actions = [replace(action, end=revs.count(0)) for action in starts[run]]
        count = await preemptions(engine)
        undisturbed = await generate(engine, run, actions)
        assert await preemptions(engine) == count
        assert disturbed.ids == undisturbed.ids, f"run {run}: other tokens"
        mine, theirs = (np.stack([r.rows[p] for p in positions]) for r in (disturbed, undisturbed))
        assert np.allclose(mine, theirs, rtol=2e-3, atol=1e-4), f"run {run}: other rows"
