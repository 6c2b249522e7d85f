"""Code that stock NNsight sends to the running server: it does what it does in transformers, alone and among
chats; its run is a run like any other; and nothing that it does is felt by anybody but itself."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
import torch

from steersight.client import connect
from steersight.protocol import messages
from steersight.runs.run import Run

from .conftest import CODE_TOKEN, Server
from .reference import Reference
from .traced import BLOCKS, OTHER, PROMPT, Packing, Saves, Served, differing, language_model
from .wire import Wire, dial, greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

CHATS = ["What is the capital of France?", "Say a colour.", "Count to five.", "Tell me about the sea."]


@pytest.fixture(scope="module")
def there(model_dir: str, reference: Reference) -> Any:
    return language_model(reference.model, model_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def usual(server: Server) -> list[list[int]]:
    """What they write where no code is about."""
    async with dial(server.address) as wire:
        return await chats(wire, "usual")


async def chats(wire: Wire, tag: str) -> list[list[int]]:
    """The replies of four ordinary chats that are written together."""
    runs = [await wire.start(f"{tag}{index}", text, sampling=greedy(12)) for index, text in enumerate(CHATS)]
    await wire.until(lambda _: set(runs) <= over(wire))
    return [wire.ids(run)[1] for run in runs]


def over(wire: Wire) -> set[str]:
    return {frame.run for frame in wire.frames if isinstance(frame, messages.Finished)}


@pytest.mark.parametrize("name", BLOCKS)
async def test_a_block_does_what_it_does_in_transformers_alone_and_among_chats(
    name: str, served: Served, there: Any, server: Server, usual: list[list[int]]
) -> None:
    here, reference = BLOCKS[name]
    expected = reference(there)
    assert differing(await served.run(here), expected) == []
    async with dial(server.address) as wire:
        among = asyncio.create_task(chats(wire, "among"))
        found = await served.run(here)
        assert await among == usual
    assert differing(found, expected) == []


async def test_a_prompt_longer_than_a_step_is_read_whole(served: Served, there: Any, server: Server) -> None:
    long = "one two three four five six seven eight nine ten " * 40

    def here(at: Served) -> Saves:
        with at.trace(long, max_tokens=1):
            norms = sum(at.tree.model.layers[4].output).norm(dim=-1).save()
        return {"norms": norms}

    with there.trace(long):
        norms = there.model.layers[4].output[0].norm(dim=-1).save()
    assert len(norms) > 256
    async with dial(server.address) as wire:
        among = asyncio.create_task(chats(wire, "long"))
        assert differing(await served.run(here), {"norms": norms}) == []
        await among


async def test_a_traced_run_is_watched_steered_and_stopped_like_any_other(
    served: Served, server: Server
) -> None:
    def here(at: Served) -> Saves:
        with at.trace(PROMPT, max_tokens=200, ignore_eos=True) as tracer:
            norms = [].save()
            for _ in tracer.iter[:]:
                norms.append(sum(at.tree.model.layers[12].output)[-1].norm())
        return {"norms": torch.stack(list(norms))}

    begun = asyncio.create_task(served.run(here))
    run = await traced_run(server)
    async with dial(server.address) as wire:
        (welcome,) = [frame for frame in wire.frames if isinstance(frame, messages.Welcome)]
        await wire.send(messages.Resume(run=run, epoch=welcome.epoch, after=0))
        await wire.until(lambda f: isinstance(f, messages.Tokens) and f.run == run)
        await wire.send(messages.Steer(run=run, rev=1, strengths={"north": 0.5}))
        applied = await wire.until(lambda f: isinstance(f, messages.Applied) and f.run == run)
        assert (applied.rev, applied.strengths) == (1, {"north": 0.5})
        await wire.until(
            lambda f: isinstance(f, messages.Rows) and f.run == run and f.start > applied.position + 3
        )
        await wire.send(messages.Stop(run=run))
        ended = await wire.until(lambda f: isinstance(f, messages.Finished) and f.run == run)
    assert ended.reason == "cancelled"
    with pytest.raises(RuntimeError, match="stopped before its end"):
        await begun
    await idle(server)


async def test_rows_and_saves_of_a_traced_run_agree(served: Served, server: Server) -> None:
    def here(at: Served) -> Saves:
        with at.trace(PROMPT, max_tokens=30) as tracer:
            norms = [].save()
            for _ in tracer.iter[:30]:
                norms.append(sum(at.tree.model.layers[12].output).norm(dim=-1))
        return {"norms": torch.cat(list(norms))}

    begun = asyncio.create_task(served.run(here))
    name = await traced_run(server)
    async with connect(server.address) as client:
        run = await client.watch(name)
        norms = (await begun)["norms"]
        await run.wait()
        rows = run.rows()[:, run.metrics.index("residual_norm"), 12]
    # On the wire they are logarithms in half precision; a client has them back in their unit.
    assert len(rows) == len(norms) + 1, "all but the last token were read"
    assert torch.allclose(norms.float(), torch.from_numpy(rows[:-1].copy()), rtol=1e-2)


async def test_several_invokes_are_runs_of_their_own(served: Served, there: Any, server: Server) -> None:
    def here(at: Served) -> Saves:
        with at.trace() as tracer:
            with tracer.invoke(PROMPT, max_tokens=1):
                first = at.tree.logits.clone().save()
            with tracer.invoke(OTHER, max_tokens=1):
                second = at.tree.logits.clone().save()
        return {"first": first, "second": second}

    expected = {}
    for name, prompt in (("first", PROMPT), ("second", OTHER)):
        with there.trace(prompt):
            logits = there.lm_head.output[0, -1:].clone().save()
        expected[name] = logits
    assert differing(await served.run(here), expected) == []


async def test_who_goes_away_ends_its_run_unless_somebody_looks_on(tree: Any, server: Server) -> None:
    """The head of the answer names the run as soon as it is admitted."""
    packing = Packing(tree)
    with packing.trace(PROMPT, max_tokens=120, ignore_eos=True) as tracer:
        for _ in tracer.iter[:]:
            tree.model.layers[1].output[0].norm()
    url = f"http://{server.address}/v1/nnsight/generate"
    headers = {"ndif-api-key": CODE_TOKEN, "content-type": "application/octet-stream"}

    async def begun(client: httpx.AsyncClient, watch: bool) -> Run:
        async with client.stream("POST", url, headers=headers, content=packing.sent) as answer:
            run = server.table.find(answer.headers["x-steersight-run"])
            assert run is not None
            if watch:
                server.table.watch(run, looks_on)
        return run  # the connection is closed in the middle of the answer

    def looks_on() -> None:
        pass

    async with httpx.AsyncClient() as client:
        alone, watched = await begun(client, False), await begun(client, True)
    await alone.over()
    assert alone.ending is not None
    assert alone.ending.reason == "cancelled"
    await watched.over()
    server.table.unwatch(watched, looks_on)
    assert watched.ending is not None
    assert watched.ending.reason == "length"
    assert watched.saved is not None
    assert watched.saved.error is None
    await idle(server)


# ---------------------------------------------------------------- what goes wrong


def raising(at: Served) -> Saves:
    with at.trace(PROMPT, max_tokens=4):
        hidden = at.tree.model.layers[1].output[0]
        hidden.nothing_of_that_name  # noqa: B018
    return {}


def beyond(at: Served) -> Saves:
    with at.trace(PROMPT, max_tokens=2):
        at.tree.model.layers[3].output[0]
        at.tree.model.layers[1].output[0]  # the model has run past it
    return {}


def looping(at: Served) -> Saves:
    with at.trace(PROMPT, max_tokens=4):
        at.tree.model.layers[1].output[0]
        while True:
            pass
    return {}


def hoarding(at: Served) -> Saves:
    with at.trace(PROMPT, max_tokens=4):
        at.tree.model.layers[1].output[0]
        torch.ones(100 << 30, dtype=torch.uint8)
    return {}


def leaving(at: Served) -> Saves:
    with at.trace(PROMPT, max_tokens=4):
        at.tree.model.layers[1].output[0]
        raise SystemExit(3)
    return {}


def looping_outside(at: Served) -> Saves:
    with at.trace() as tracer:
        while True:
            pass
        with tracer.invoke(PROMPT):
            pass
    return {}


def leaving_outside(at: Served) -> Saves:
    with at.trace() as tracer:
        import os

        os._exit(3)
        with tracer.invoke(PROMPT):
            pass
    return {}


def hoarding_outside(at: Served) -> Saves:
    with at.trace() as tracer:
        torch.ones(100 << 30, dtype=torch.uint8)
        with tracer.invoke(PROMPT):
            pass
    return {}


def without_a_prompt(at: Served) -> Saves:
    with at.trace(""):
        at.tree.logits.save()
    return {}


def two_replies(at: Served) -> Saves:
    with at.trace(PROMPT, n=2, temperature=1.0):
        at.tree.logits.save()
    return {}


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (raising, r"AttributeError: .*nothing_of_that_name[\s\S]*Intervention traceback"),
        (beyond, r"OutOfOrderError: .*already ran past it"),
        (looping, r"BlockLimitError: The code of this run has taken 5 s[\s\S]*while True"),
        (hoarding, r"can't allocate memory[\s\S]*take 2 GiB \(--nnsight-memory-gib\)"),
        (leaving, r"BlockLeftError: The code raised SystemExit, which ends its run and nothing else"),
        (looping_outside, r"more than 5 s or 2 GiB"),
        (leaving_outside, r"The process that read this trace has ended"),
        (hoarding_outside, r"can't allocate memory"),
        (without_a_prompt, r"has no tokens"),
        (two_replies, r"n is 1 here"),
    ],
)
async def test_code_that_fails_ends_itself_and_its_error_comes_home(
    block: Callable[[Served], Saves], why: str, served: Served, server: Server, usual: list[list[int]]
) -> None:
    """Chats beside it are written to their ends, with the tokens that they would have had."""
    async with dial(server.address) as wire:
        among = asyncio.create_task(chats(wire, "beside"))
        with pytest.raises(RuntimeError, match=why):
            await served.run(block)
        assert await among == usual
    assert server.engine.status.ready
    await idle(server)


async def test_who_may_not_bring_code_is_told_so(server: Server) -> None:
    url, key = f"http://{server.address}/v1/nnsight/generate", {"ndif-api-key": CODE_TOKEN}
    plain = {"content-type": "application/octet-stream"}
    async with httpx.AsyncClient() as client:

        async def refused(headers: dict[str, str], content: bytes = b"x") -> tuple[int, str]:
            answer = await client.post(url, headers={**plain, **headers}, content=content)
            return answer.status_code, answer.json()["detail"]

        assert await refused({}) == (401, await sentence("missing or wrong", refused({})))
        assert (await refused({"ndif-api-key": "guess"}))[0] == 401
        for tells in ({"origin": f"http://{server.address}"}, {"sec-fetch-mode": "no-cors"}):
            assert (await refused(key | tells))[0] == 403
        assert (await refused(key | {"content-type": "text/plain"}))[0] == 415
        # What is no trace is an error of the trace, with its type.
        answer = await client.post(url, headers={**plain, **key}, content=b"not a pickle at all")
        assert answer.status_code == 200
        assert torch.load(io.BytesIO(answer.content))["error"]["type_name"] == "UnpicklingError"
    assert server.engine.status.ready


async def sentence(part: str, answer: Any) -> str:
    """The sentence of a refusal, which has `part` in it."""
    said: str = (await answer)[1]
    assert part in said
    return said


async def traced_run(server: Server) -> str:
    """The name of the live run that a notebook has begun, once there is one."""
    changed = asyncio.Event()
    unlisten = server.table.notices.telling.listen(changed.set)
    async with asyncio.timeout(60):
        while True:
            for run in server.table.live.values():
                if run.origin == "notebook":
                    unlisten()
                    return run.id
            await changed.wait()
            changed.clear()


async def idle(server: Server) -> None:
    """Until nothing of any run is held anywhere."""
    async with asyncio.timeout(60):
        held = await server.engine.held()
        while any(held[part] for part in ("vllm", "nnsight", "observer")):
            held = await server.engine.held()
