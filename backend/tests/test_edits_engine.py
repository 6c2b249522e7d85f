"""Edits on the real engine, installed by stock NNsight: what they do is what transformers does with the same
change, in the runs that name them and in no others; and nothing of them stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import torch

from steersight.engine.errors import RunFailedError

from .conftest import CODE_TOKEN, Server
from .reference import Reference
from .test_engine_truth import TOLERANCE, Collected, directions, worst
from .traced import PROMPT, Served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TEXT = "Tell me about Paris."
LAYER = 5
EDIT = "no MLP"


def without_mlp(at: Served) -> Any:
    """The cell of a notebook."""
    with at.tree.edit(serve=f"http://{at.address}", api_key=at.token, name=EDIT) as (tracer, handle):
        for _ in tracer.iter[:]:
            at.tree.model.layers[LAYER].mlp.output[:] = 0
    return handle


def that_fails(at: Served) -> Any:
    with at.tree.edit(serve=f"http://{at.address}", api_key=at.token, name="fails") as (tracer, handle):
        for step in tracer.iter[:]:
            hidden = at.tree.model.layers[LAYER].mlp.output
            if step == 3:
                hidden.reshape(7, 7, 7, 7, 7)
    return handle


@asynccontextmanager
async def installed(served: Served, cell: Any = without_mlp) -> AsyncIterator[Any]:
    """What a notebook does, in a thread: its client waits, and the server is in this process."""
    handle = await asyncio.to_thread(cell, served)
    try:
        yield handle
    finally:
        await asyncio.to_thread(handle.clear)


@contextmanager
def changed(reference: Reference) -> Iterator[None]:
    """The same change in transformers."""
    mlp = reference.model.model.layers[LAYER].mlp
    hook = mlp.register_forward_hook(lambda _module, _args, output: torch.zeros_like(output))
    try:
        yield
    finally:
        hook.remove()


def holds(run: Collected, reference: Reference, push: Any = ()) -> None:
    """It was written as the reference writes, and its rows are the reference's."""
    reading = reference.read(run.ids, (lambda _position: push) if push else None)
    assert reading.differing(run.ids, len(run.prompt)) == []
    assert max(worst(run.rows(), reading).values()) <= TOLERANCE


async def nothing_stays(server: Server) -> None:
    async def held() -> int:
        load = await server.engine.held()
        return max(load["vllm"], load["nnsight"], load["observer"])

    async with asyncio.timeout(20):
        while await held():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_an_edit_is_the_same_change_in_transformers_and_its_neighbour_feels_nothing(
    served: Served, server: Server, reference: Reference
) -> None:
    alone = await Collected(server, TEXT).run("alone", {}, tokens=32)
    async with installed(served):
        edited, steered, plain = await asyncio.gather(
            Collected(server, TEXT, edits=(EDIT,)).run("edited", {}, tokens=32),
            Collected(server, TEXT, edits=(EDIT,)).run("both", {"north": 0.2}, tokens=32),
            Collected(server, TEXT).run("plain", {}, tokens=32),
        )
        with changed(reference):
            holds(edited, reference)
            holds(steered, reference, directions(server, {"north": 0.2}))
        holds(plain, reference)
        assert plain.ids == alone.ids != edited.ids
        (edit,) = server.engine.edits.listing()
        assert (edit.name, edit.runs, edit.error) == (EDIT, 2, None)
    with pytest.raises(RunFailedError, match="There is no edit 'no MLP'"):
        await Collected(server, TEXT, edits=(EDIT,)).run("late", {})
    after = await Collected(server, TEXT).run("after", {}, tokens=32)
    assert after.ids == alone.ids
    await nothing_stays(server)


async def test_a_reply_keeps_an_edit_that_is_removed_while_it_is_written(
    served: Served, server: Server, reference: Reference
) -> None:
    async with installed(served) as handle:
        run = Collected(server, TEXT, edits=(EDIT,))
        writing = asyncio.create_task(run.run("kept", {}, tokens=40))
        while len(run.reply) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.to_thread(handle.clear)
        assert not writing.done()
        await writing
        with changed(reference):
            holds(run, reference)
    await nothing_stays(server)


async def test_a_trace_has_all_edits_or_those_that_it_names(served: Served, server: Server) -> None:
    def logits(**more: Any) -> torch.Tensor:
        with served.trace(PROMPT, max_tokens=1, **more):
            found = served.tree.logits.clone().save()
        return torch.as_tensor(found)

    async with installed(served):
        none, all_, named = [
            await asyncio.to_thread(logits, **more) for more in ({"edits": []}, {}, {"edits": [EDIT]})
        ]
        assert torch.allclose(all_, named, rtol=1e-4, atol=1e-4)
        assert (none - named).abs().max() > 0.1
        with pytest.raises(Exception, match="no edit is installed under that name"):
            await asyncio.to_thread(logits, edits=["nobody's"])
    assert torch.allclose(await asyncio.to_thread(logits), none, rtol=1e-4, atol=1e-4)
    await nothing_stays(server)


async def test_an_edit_that_raises_ends_its_chat_and_nobody_elses(served: Served, server: Server) -> None:
    alone = await Collected(server, TEXT).run("before", {}, tokens=24)
    async with installed(served, that_fails):
        failing = Collected(server, TEXT, edits=("fails",))
        results = await asyncio.gather(
            failing.run("failing", {}, tokens=24),
            Collected(server, TEXT).run("beside", {}, tokens=24),
            return_exceptions=True,
        )
        assert isinstance(results[0], RunFailedError)
        assert str(results[0]).startswith("The edit 'fails' failed in this reply: RuntimeError: shape")
        assert failing.reply == alone.reply[:3], "of the pass in which it raised nothing is shown"
        assert isinstance(results[1], Collected)
        assert results[1].ids == alone.ids
        assert (server.engine.edits.listing()[0].error or "").startswith("RuntimeError: shape")
    await nothing_stays(server)


async def test_what_no_worker_can_read_is_refused_and_is_nowhere(server: Server) -> None:
    headers = {"ndif-api-key": CODE_TOKEN, "content-type": "application/octet-stream"}
    async with httpx.AsyncClient(base_url=f"http://{server.address}", headers=headers) as http:
        refused = await http.post("/v1/nnsight/register/r-1?name=broken", content=b"no pickle at all")
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("The engine could not read it. UnpicklingError")
    assert server.engine.edits.listing() == []
    await Collected(server, TEXT).run("unharmed", {}, tokens=4)
