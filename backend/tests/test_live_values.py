"""What the code of a traced run emits, from stock NNsight through the running server to whoever watches: it
comes with the rows, is what transformers computes, and changes nothing for anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from steersight import live
from steersight.client import Client, Run, connect

from .conftest import Server
from .reference import Reference
from .test_tracing import CHATS, idle
from .traced import PROMPT, Saves, Served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

LAYERS = (3, 12, 29)
TOKENS = 48
HALF = 1e-3
"""Relative: between a number and its double there are two thousand half floats."""
LOGARITHM = 3e-3
"""The same of a number whose logarithm, up to 8, was rounded."""


async def begun(
    client: Client, server: Server, served: Served, block: Callable[[Served], Saves]
) -> tuple[Run, asyncio.Task[Saves]]:
    """Send a block; its run as a client has it that hears of it and watches, and what will come home."""

    def fresh() -> list[str]:
        live = server.table.live.values()
        return [run.id for run in live if run.origin == "notebook" and run.id not in before]

    before: set[str] = set()
    before = set(fresh())
    sent = asyncio.create_task(served.run(block))
    async with asyncio.timeout(60):
        await client.until(lambda: bool(fresh()))
    return await client.watch(fresh()[0]), sent


async def chats(client: Client) -> list[Run]:
    return [
        await client.start([{"role": "user", "content": text}], sampling={"max_tokens": 12, "temperature": 0})
        for text in CHATS
    ]


def lengths(at: Served) -> Saves:
    model = at.tree
    with at.trace(PROMPT, max_tokens=TOKENS, ignore_eos=True) as tracer:
        for _ in tracer.iter[:]:
            for layer in LAYERS:
                hidden, residual = model.model.layers[layer].output
                live.emit("length", layer, (hidden + residual).norm(dim=-1))
            live.emit("surest", None, model.logits[-1].max())
    return {}


async def test_what_a_block_emits_is_what_transformers_computes(
    server: Server, served: Served, reference: Reference
) -> None:
    """At every token of prompt and reply, beside four chats that are what they are without it."""
    async with connect(server.address) as client, connect(server.address) as other:
        beside = await chats(client)
        run, sent = await begun(client, server, served, lengths)
        await run.wait()
        await sent
        later = await other.watch(run.id)
        alone = await chats(other)
        for one in (*beside, later, *alone):
            await one.wait()
    assert [one.ids for one in beside] == [one.ids for one in alone]
    assert not any(one.live for one in (*beside, *alone))
    prompt, ids = len(run.prompt.ids), [*run.prompt.ids, *run.ids]
    expected = reference.read(ids)
    assert expected.differing(ids, prompt) == []
    assert run.metrics[-2:] == ["live:length", "live:surest"]
    length, surest, norm = (run.values(name)[:-1] for name in ("length", "surest", "residual_norm"))
    at = list(LAYERS)
    assert np.allclose(length[:, at], expected.residual_norm[:-1, at], rtol=HALF)
    assert np.allclose(length[:, at], norm[:, at], rtol=LOGARITHM)
    assert np.isnan(np.delete(length, at, axis=1)).all()
    # One number of a pass stands at its last token; None is the last layer.
    assert np.isfinite(surest[prompt - 1 :, -1]).all()
    assert np.isnan(surest[: prompt - 1]).all()
    assert np.isnan(surest[:, :-1]).all()
    # Whoever comes later has the same.
    assert (later.metrics, sorted(later.live)) == (run.metrics, ["length", "surest"])
    assert np.array_equal(later.rows(), run.rows(), equal_nan=True)


async def test_what_it_is_watched_with_changes_around_what_it_emits(server: Server, served: Served) -> None:
    async with connect(server.address) as client:
        run, sent = await begun(client, server, served, lengths)
        async for _ in run.texts():
            if len(run.ids) >= 4:
                break
        position = await run.watch(metrics=[])
        await run.wait()
        await sent
    assert len(run.prompt.ids) + 2 < position < len(run.prompt.ids) + TOKENS - 1
    assert np.isfinite(run.values("length")[:-1, 3]).all()
    assert np.isfinite(run.values("residual_norm")[:position]).all()
    assert np.isnan(run.values("residual_norm")[position:]).all()
    await idle(server)


async def test_a_bad_call_comes_home_and_what_was_emitted_before_it_stays(
    server: Server, served: Served
) -> None:
    def here(at: Served) -> Saves:
        with at.trace(PROMPT, max_tokens=TOKENS, ignore_eos=True) as tracer:
            for step in tracer.iter[:]:
                hidden = at.tree.model.layers[3].output[0]
                live.emit("length", 3, hidden.norm(dim=-1))
                if step == 8:
                    live.emit("too much", 3, hidden)
        return {}

    async with connect(server.address) as client:
        run, sent = await begun(client, server, served, here)
        await run.wait()
        with pytest.raises(RuntimeError, match=r"ValueError: .*'too much' is no name of a metric"):
            await sent
    assert sorted(run.live) == ["length"]
    assert np.isfinite(run.values("length")[: len(run.prompt.ids) + 8, 3]).all()
    await idle(server)


async def test_an_edit_emits_in_the_chats_that_name_it(server: Server, served: Served) -> None:
    def cell() -> Any:
        where = {"serve": f"http://{served.address}", "api_key": served.token}
        with served.tree.edit(**where, name="measured") as (tracer, handle):
            for _ in tracer.iter[:]:
                live.emit("mean", 5, served.tree.model.layers[5].mlp.output.mean(dim=-1))
        return handle

    handle = await asyncio.to_thread(cell)
    asked: dict[str, Any] = {
        "metrics": [], "sampling": {"max_tokens": 8, "temperature": 0}, "read_cache": False,
    }  # fmt: skip
    async with connect(server.address) as client:
        question = [{"role": "user", "content": CHATS[0]}]
        plain, measured = [await client.start(question, **asked, edits=edits) for edits in ([], ["measured"])]
        await asyncio.gather(plain.wait(), measured.wait())
    await asyncio.to_thread(handle.clear)
    assert (measured.ids, plain.live) == (plain.ids, {})
    assert np.isfinite(measured.values("mean")[:-1, 5]).all()
    await idle(server)


async def test_behind_the_last_pass_nothing_can_be_emitted(server: Server, served: Served) -> None:
    def here(at: Served) -> Saves:
        with at.trace(PROMPT, max_tokens=4) as tracer:
            tracer.result.save()
            live.emit("late", 3, 1.0)
        return {}

    with pytest.raises(RuntimeError, match=r"RuntimeError: .*came when the last pass of its run was over"):
        await served.run(here)
    await idle(server)
