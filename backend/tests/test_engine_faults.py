"""Engines that are killed, stopped, or broken from inside: who hears of it, how soon, and what is left.

One engine of its own for all of these, because it is lost again and again: a tiny model, which is loaded
sooner, on two ranks, so that each of an engine's processes can be the one that is lost.
"""

from __future__ import annotations

import ast
import asyncio
import io
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
import torch
import transformers
from nnsight import NNsight

from steersight.engine.family import SHARED_MEMORY, shared_memory
from steersight.engine.reply import Entry
from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.engine.service import (
    EngineLostError,
    EngineNotReadyError,
    EngineOptions,
    EngineService,
    RunFailedError,
)
from steersight.engine.status import Status
from steersight.engine.tracing.asked import Saved
from steersight.vectors.action import Action
from steersight.vectors.store import SteeringVector, save_vector

from .families import FAMILIES, HIDDEN, make_checkpoint
from .planted_fault import PLANTED
from .taken import Taken
from .traced import TOKEN_IDS, Served, differing, packed, tree_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

SOON = 2.0
"""Seconds within which everybody has heard of a loss."""
STALL = 8.0
TOKENS = 24
LONG = 1500
"""Tokens of a run that is not over before it is disturbed."""


class Watched:
    """An engine, what it says about itself, and what it has on this machine."""

    def __init__(self, options: EngineOptions, temporary: Path, prompt: list[int]) -> None:
        self._before = psutil.Process().children(recursive=True)
        self._mapped: set[int] = set()
        self._temporary = temporary
        self._prompt = prompt
        self._changed = asyncio.Event()
        self.tree = tree_of(options.model)
        self.service = EngineService(options)
        self.service.listen(self._changed.set)

    async def until(self, wanted: Callable[[Status], bool], seconds: float = 240) -> None:
        async with asyncio.timeout(seconds):
            while not wanted(self.service.status):
                self._changed.clear()
                await self._changed.wait()

    async def ready(self) -> None:
        await self.until(lambda status: status.state in ("ready", "failed"))
        assert self.service.status.state == "ready", self.service.status
        self._look()

    # what it has

    def processes(self) -> list[psutil.Process]:
        """Living ones under this one that were not there before it."""
        tracker = "multiprocessing.resource_tracker"
        return [
            child
            for child in psutil.Process().children(recursive=True)
            if child not in self._before
            and child.status() != psutil.STATUS_ZOMBIE
            and tracker not in " ".join(child.cmdline())
        ]

    def process(self, title: str) -> psutil.Process:
        """The one whose title ends like this."""
        (found,) = [process for process in self.processes() if process.name().endswith(title)]
        return found

    def _look(self) -> set[int]:
        theirs = set().union(*(shared_memory(process.pid) for process in self.processes()))
        self._mapped |= theirs
        return theirs

    def _shared(self) -> set[int]:
        """What any of its processes, dead or alive, had in shared memory and is still there."""
        return {file.stat().st_ino for file in Path(SHARED_MEMORY).iterdir()} & self._mapped

    def only_one_engine(self) -> None:
        """Nothing is there but what a fresh engine has."""
        assert len(self.processes()) == 1 + self.service.options.tensor_parallel
        (folder,) = self._temporary.iterdir()
        assert folder.name.startswith("steersight-")
        theirs = self._look()
        assert theirs
        assert self._shared() <= theirs

    def nothing(self) -> None:
        """It has left nothing behind."""
        assert self.processes() == []
        assert list(self._temporary.iterdir()) == []
        assert self._shared() == set()

    # what it does

    def request(
        self,
        name: str,
        tokens: int = TOKENS,
        *,
        actions: list[Action] | None = None,
        rev: int = 0,
        metrics: list[str] | None = None,
        edits: tuple[str, ...] = (),
    ) -> RunRequest:
        sampling = {"max_tokens": tokens, "temperature": 0.0, "ignore_eos": True}
        wants = Wants(tuple(metrics or ["residual_norm"]))
        options = RunOptions(
            name, first_row=len(self._prompt), wants=wants, actions=tuple(actions or ()), rev=rev
        )
        return RunRequest(self._prompt, sampling, options, edits=edits, read_cache=False)

    async def code(self, name: str, block: Callable[[Served], Any]) -> Saved:
        """What a block of code has saved, as the code of a run."""
        traced = packed(self.tree, block)
        request = replace(
            self.request(name), prompt_ids=traced.prompt_ids, sampling=traced.sampling, block=traced.block
        )
        ended = await self.service.generate(request, Taken().take)
        assert ended.saved is not None
        return ended.saved

    async def run(
        self,
        request: RunRequest,
        at: dict[int, Callable[[], Awaitable[Any]]] | None = None,
        rows: list[int] | None = None,
    ) -> list[int]:
        """A run's tokens; `at` is what to do when there are so many, `rows` gets the revisions."""
        taken = Taken()
        doing: list[asyncio.Task[Any]] = []

        def take(entry: Entry) -> None:
            taken.take(entry)
            if rows is not None:
                rows.extend(entry.revisions)
            if at and (act := at.get(len(taken.tokens))) is not None:
                doing.append(asyncio.ensure_future(act()))

        try:
            await self.service.generate(request, take)
        finally:
            await asyncio.gather(*doing)
        return taken.tokens

    async def reply(self, name: str, tokens: int = TOKENS, **more: Any) -> list[int]:
        return await self.run(self.request(name, tokens, **more))

    def live(self, name: str, **more: Any) -> tuple[asyncio.Task[float], asyncio.Event]:
        """A long run, and when it has begun; its task gives the time at which it raised EngineLostError."""
        begun = asyncio.Event()

        async def note() -> None:
            begun.set()

        async def run() -> float:
            with pytest.raises(EngineLostError, match="It is being started again"):
                await self.run(self.request(name, LONG, **more), {1: note})
            return time.monotonic()

        return asyncio.create_task(run()), begun


@contextmanager
def temporary() -> Iterator[Path]:
    """Where this process and the engine's have their temporary files meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))  # short: a socket's path has a limit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setenv("TMPDIR", str(folder))
        yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    data = tmp_path_factory.mktemp("faults")
    config = FAMILIES["Llama"]()
    config.max_position_embeddings = 2048
    make_checkpoint(config, data / "model")
    north = SteeringVector(
        id="north", label="north", description="A random direction.", layers=[1],
        directions=torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(7)), range=(-1.0, 1.0),
        suggested=0.3, model="any", hidden_size=HIDDEN,
    )  # fmt: skip
    save_vector(north, data / "vectors" / "north.safetensors")
    options = EngineOptions(
        str(data / "model"), data, max_model_len=2048, max_runs=8, stall_seconds=STALL, tensor_parallel=2,
        metrics=(str(Path(__file__).with_name("planted_fault.py")),),
    )  # fmt: skip
    with temporary() as folder:
        watched = Watched(options, folder, list(range(10, 40)))
        await watched.service.load()
        await watched.ready()
        yield watched
        # It does not hear that it is told to end.
        watched.process("Worker_TP0").suspend()
        began = time.monotonic()
        await watched.service.shutdown()
        assert time.monotonic() - began < 30
        watched.nothing()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def usual(watched: Watched) -> dict[str, list[int]]:
    """Replies of an engine that nothing has happened to."""
    return {
        "plain": await watched.reply("plain"),
        "north": await watched.reply("north", actions=[Action("north", 0.3)]),
    }


async def test_its_capacity_and_a_run_that_was_steered_before_it_began(watched: Watched) -> None:
    # One GiB of keys and values for each rank: 4 layers, 1 of the 2 heads of 32, fp32. Less than a block of
    # 128 tokens is missing, and one that vLLM keeps to itself.
    full = (1 << 30) // (2 * 4 * 1 * 32 * 4)
    assert watched.service.capacity_tokens is not None
    assert full - 2 * 128 <= watched.service.capacity_tokens <= full
    revs: list[int] = []
    await watched.run(watched.request("late", 4, rev=3, actions=[Action("north", 0.1)]), rows=revs)
    assert revs == [3, 3, 3]


async def test_a_fault_in_the_lens_is_one_runs_error(watched: Watched, usual: dict[str, list[int]]) -> None:
    service = watched.service
    restarts = service.restarts
    neighbour = asyncio.create_task(watched.reply("neighbour"))
    rows: list[int] = []
    steer = {5: lambda: service.steer("broken", 1, [Action("north", PLANTED)])}
    with pytest.raises(RunFailedError, match=r"could not steer this reply.*a planted fault"):
        await watched.run(watched.request("broken", LONG), steer, rows)
    assert set(rows) == {0}, "a token that was not steered has a row that says it was"
    assert await neighbour == usual["plain"]
    # From the first pass on, which has no row of its own.
    with pytest.raises(RunFailedError, match="a planted fault"):
        await watched.reply("broken again", 1, actions=[Action("north", PLANTED)])
    assert (service.status.state, service.restarts) == ("ready", restarts)
    assert await watched.reply("afterwards", actions=[Action("north", 0.3)]) == usual["north"]
    assert (await service.held())["observer"] == 0


class Nonsense:
    """Stands where an action is, and is none for the engine."""

    vector = "north"

    def to_map(self) -> dict[str, int]:
        return {"nonsense": 1}


async def test_steering_that_cannot_be_done_fails_its_run(
    watched: Watched, usual: dict[str, list[int]]
) -> None:
    async def steer() -> None:
        with pytest.raises(RunFailedError, match="could not steer this reply"):
            await watched.service.steer("victim", 1, [Nonsense()])  # type: ignore[list-item]

    with pytest.raises(RunFailedError, match="could not steer this reply"):
        await watched.run(watched.request("victim", LONG), {3: steer})
    assert await watched.reply("after nonsense") == usual["plain"]


def edit_that_says_so() -> bytes:
    """A block that shows that it is at work, as NNsight's client packs one."""
    from nnsight.intervention.interleaver import Mediator
    from nnsight.intervention.serialization import dumps

    source = "raise ValueError('It acts.')\n"
    return bytes(dumps(Mediator(compile(source, "<edit>", "exec"), {}, {}, node=ast.parse(source))))


async def acts(watched: Watched, name: str) -> None:
    """The edit of this name is in the engine, on all ranks."""
    with pytest.raises(RunFailedError, match=f"The edit '{name}' failed in this reply: ValueError: It acts"):
        await watched.reply("edited", 2, edits=(name,))


async def test_a_killed_engine_is_brought_back(watched: Watched, usual: dict[str, list[int]]) -> None:
    service = watched.service
    restarts = service.restarts
    await watched.reply("metric", 2, metrics=["breaks"])
    assert set(service.offer.failed_metrics) == {"breaks"}
    await service.edits.install("e", "there", edit_that_says_so())
    await acts(watched, "there")
    capacity, vectors = service.capacity_tokens, set(service.offer.vectors)
    first, begun = watched.live("one")
    second, begun_too = watched.live("two", actions=[Action("north", 0.3)])

    async def build() -> float:
        with pytest.raises(EngineLostError):
            async with service.offer.lent(service.offer.vectors["north"].renamed("lent")):
                await service.examples.take([1, 2, 3], reply_tokens=1000)
        return time.monotonic()

    building = asyncio.create_task(build())
    await begun.wait()
    await begun_too.wait()
    calls = [asyncio.create_task(service.steer("one", rev, [])) for rev in range(1, 4)]
    await asyncio.sleep(0)  # they are on their way
    killed = time.monotonic()
    os.kill(watched.process("EngineCore").pid, signal.SIGKILL)
    await watched.until(lambda status: status.state != "ready", SOON)
    assert service.status.state == "loading"
    assert service.status.stage == "The engine ended unexpectedly. It is being started again (try 1 of 5)."
    with pytest.raises(EngineNotReadyError, match="ended unexpectedly"):
        await watched.reply("too early")
    async with asyncio.timeout(SOON):
        heard = await asyncio.gather(first, second, building)
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert max(heard) - killed < SOON
    assert all(isinstance(each, EngineLostError | None) for each in ended), ended
    assert not any((await service.held()).values())
    await watched.ready()
    print(f"heard after {max(heard) - killed:.3f} s, ready after {time.monotonic() - killed:.1f} s")  # noqa: T201
    assert service.restarts == restarts + 1
    assert service.offer.failed_metrics == {}
    assert (service.capacity_tokens, set(service.offer.vectors)) == (capacity, vectors)
    await acts(watched, "there")
    await service.edits.remove("e")
    assert await watched.reply("plain again") == usual["plain"]
    assert await watched.reply("north again", actions=[Action("north", 0.3)]) == usual["north"]
    assert not any((await service.held()).values())
    watched.only_one_engine()


async def test_an_idle_engine_that_is_stopped_is_found_and_brought_back(
    watched: Watched, usual: dict[str, list[int]]
) -> None:
    service = watched.service
    restarts = service.restarts
    watched.process("Worker_TP1").suspend()
    stopped = time.monotonic()
    await watched.until(lambda status: "has not answered for" in status.stage, STALL)
    assert service.status.state == "ready"
    run, _ = watched.live("into the void")
    began = time.monotonic()
    await service.held()
    assert time.monotonic() - began < 4
    async with asyncio.timeout(2 * STALL):
        heard = await run
    assert service.status.state == "loading"
    assert f"The engine has not answered for {STALL:g} s. It is being started again" in service.status.stage
    await watched.ready()
    print(f"heard after {heard - stopped:.1f} s, ready after {time.monotonic() - stopped:.1f} s")  # noqa: T201
    assert service.restarts == restarts + 1
    assert await watched.reply("plain once more") == usual["plain"]
    watched.only_one_engine()


@pytest.mark.parametrize("name", TOKEN_IDS)
async def test_code_on_two_ranks_does_what_it_does_in_transformers(name: str, watched: Watched) -> None:
    """Each rank runs it, over streams that all have whole and parts that each has a share of."""
    here, there = TOKEN_IDS[name]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        watched.service.options.model, dtype=torch.float32
    ).eval()
    saved = await watched.code(name, here)
    assert saved.error is None
    found = torch.load(io.BytesIO(saved.payload))["saves"]
    assert differing(found, there(NNsight(model))) == []


async def test_a_rank_of_two_whose_process_code_ends(watched: Watched, usual: dict[str, list[int]]) -> None:
    """Of clients' code this is the worst: all who are live hear of it soon, and the engine comes back."""

    def leaving(at: Served) -> None:
        with at.trace([1, 2, 3], max_tokens=4):
            at.tree.model.layers[1].output[0]
            if torch.distributed.get_rank() == 1:
                os._exit(3)

    restarts = watched.service.restarts
    run, begun = watched.live("live")
    await begun.wait()
    killed = time.monotonic()
    with pytest.raises(EngineLostError):
        await watched.code("the end", leaving)
    async with asyncio.timeout(SOON):
        heard = await run
    await watched.ready()
    print(f"heard after {heard - killed:.3f} s, ready after {time.monotonic() - killed:.1f} s")  # noqa: T201
    assert await watched.reply("again") == usual["plain"]
    assert watched.service.restarts == restarts + 1
    watched.only_one_engine()
