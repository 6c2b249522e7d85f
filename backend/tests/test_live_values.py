"""A block of Python in a run of the real engine: what it emits reaches the run's clients with the rows, is
what transformers computes, and changes nothing for anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from steersight import live
from steersight.client import Client, Run, connect
from steersight.engine import generation, submission
from steersight.engine.request import RunRequest

from .conftest import Server
from .reference import Reference

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

LAYERS = (3, 12, 29)
TOKENS = 12
HALF = 1e-3
"""Relative: two thousand steps between a number and its double."""
LOGARITHM = 3e-3
"""The same where the logarithm of up to 8 was rounded."""


class Unsent:
    """Takes a trace's block as NNsight would send it with a request, and sends nothing."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.block = b""

    def __call__(self, tracer: Any) -> None:
        try:
            _, (_, params, _), settings = tracer.prepare(tracer.info.code)
            self.model._attach_mediators(params, **settings)
            self.block = params[0].extra_args["nnsight_mediator"]
        finally:
            self.model.interleaver.cancel()


@pytest.fixture
def traced(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Any]:
    """Runs that begin in this context carry a block; gives what NNsight has of the first one's end."""
    model = server.engine._life.nnsight
    submitted: list[str] = []
    usual = submission.submission

    @asynccontextmanager
    async def carrying(block: bytes) -> AsyncIterator[Callable[[], Any]]:
        def with_block(engine: Any, request: RunRequest, facts: Any) -> submission.Submission:
            asked = usual(engine, request, facts)
            asked.sampling.extra_args["nnsight_mediator"] = block
            asked.sampling.skip_reading_prefix_cache = True
            submitted.append(asked.request_id)
            return asked

        from nnsight.modeling.vllm.engines.engine import acollect

        async def ending() -> Any:
            return await acollect(model.vllm_entrypoint, submitted.pop())

        monkeypatch.setattr(generation, "submission", with_block)
        yield ending
        for request in submitted:
            await acollect(model.vllm_entrypoint, request)
        monkeypatch.setattr(generation, "submission", usual)

    return carrying


async def ask(client: Client, metrics: list[str] | None, text: str = "Tell me about Paris.") -> Run:
    return await client.start(
        [{"role": "user", "content": text}], metrics=metrics, read_cache=False,
        sampling={"max_tokens": TOKENS, "temperature": 0},
    )  # fmt: skip


async def test_what_a_block_emits_is_what_transformers_computes(
    server: Server, reference: Reference, traced: Callable[[bytes], Any]
) -> None:
    """At every token of prompt and reply, beside four ordinary runs that are what they are without it."""
    model = server.engine._life.nnsight
    unsent = Unsent(model)
    with model.trace("x", backend=unsent) as tracer:
        for _ in tracer.iter[:]:
            for layer in LAYERS:
                hidden, residual = model.model.layers[layer].output
                live.emit("length", layer, (hidden + residual).norm(dim=-1))
            live.emit("newest", None, model.logits[-1].max())
    questions = [f"Write {number} words about the sea." for number in range(4)]
    async with connect(f"ws://{server.address}/ws") as client, connect(f"ws://{server.address}/ws") as other:
        beside = [await ask(client, None, text) for text in questions]
        async with traced(unsent.block) as ending:
            run = await ask(client, ["residual_norm"])
            second = await other.watch(run.id)
            await asyncio.gather(run.wait(), second.wait())
            assert (await ending())["error"] is None
        await asyncio.gather(*(one.wait() for one in beside))
        alone = [await ask(client, None, text) for text in questions]
        await asyncio.gather(*(one.wait() for one in alone))
    assert [one.ids for one in beside] == [one.ids for one in alone]
    ids = [*run.prompt.ids, *run.ids]
    expected = reference.read(ids)
    assert expected.differing(ids, len(run.prompt.ids)) == []
    assert run.metrics == ["residual_norm", "live:length", "live:newest"]
    length, newest, norm = (run.values(name)[:-1] for name in ("length", "newest", "residual_norm"))
    at = list(LAYERS)
    assert np.allclose(length[:, at], expected.residual_norm[:-1, at], rtol=HALF)
    assert np.allclose(length[:, at], norm[:, at], rtol=LOGARITHM)
    assert np.isnan(np.delete(length, at, axis=1)).all()
    # One number of a pass stands at its last token, in the last layer.
    prompt = len(run.prompt.ids)
    assert np.isfinite(newest[prompt - 1 :, -1]).all()
    assert np.isnan(newest[: prompt - 1]).all()
    assert np.isnan(newest[:, :-1]).all()
    assert {name: one.family for name, one in run.live.items()} == {"length": "live", "newest": "live"}
    assert np.array_equal(second.rows(), run.rows(), equal_nan=True)
    load = [await server.engine._life.call("steersight_load")]
    assert load[0][0]["nnsight"] == 0


async def test_a_bad_call_ends_its_block_with_the_sentence(
    server: Server, traced: Callable[[bytes], Any]
) -> None:
    model = server.engine._life.nnsight
    unsent = Unsent(model)
    with model.trace("x", backend=unsent) as tracer:
        for _ in tracer.iter[:]:
            hidden = model.model.layers[3].output[0]
            live.emit("length", 3, hidden.norm(dim=-1))
            live.emit("too much", 3, hidden)
    async with connect(f"ws://{server.address}/ws") as client, traced(unsent.block) as ending:
        run = await ask(client, [])
        await run.wait()
        error = (await ending())["error"]
    assert "'too much' is no name of a metric. Take 1 to 64 letters" in str(error)
    # What it had emitted before is there.
    assert run.metrics == ["live:length"]
    assert np.isfinite(run.values("length")[: len(run.prompt.ids), 3]).all()


async def test_after_the_last_pass_nothing_can_be_emitted(
    server: Server, traced: Callable[[bytes], Any]
) -> None:
    model = server.engine._life.nnsight
    unsent = Unsent(model)
    with model.trace("x", backend=unsent):
        model.model.layers[3].output.save()
        try:
            model.model.layers[2].output.save()  # the model is past it: the block waits until its run is over
        finally:
            live.emit("late", 3, 1.0)
    async with connect(f"ws://{server.address}/ws") as client, traced(unsent.block) as ending:
        run = await ask(client, [])
        await run.wait()
        error = (await ending())["error"]
    assert "came when the last pass of its run was over" in str(error)
    assert run.metrics == []
