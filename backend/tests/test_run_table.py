"""Admission, the queue, and how long a run is kept: the table alone, over an engine that obeys.

What a person meets is tested on the real engine in test_delivery.py; here are the cases that need one that
is full, lost or never done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio

from steersight.engine.channel import RowBlock
from steersight.engine.service import (
    EngineLostError,
    EngineService,
    GenerateRequest,
    ModelFacts,
    RunFailedError,
    Status,
    TokenStep,
)
from steersight.engine.use import VectorUse
from steersight.metrics import Registry
from steersight.protocol.codec import FrameError
from steersight.protocol.messages import ChatMessage, Sampling, Start, Steer
from steersight.runs import table as table_module
from steersight.runs.log import FinishedEvent, GapEvent, QueuedEvent
from steersight.runs.run import Run
from steersight.runs.table import RunLimits, RunTable
from steersight.telemetry import Telemetry


class Engine:
    """Writes nothing until a test says so."""

    def __init__(self) -> None:
        self.status = Status("ready", "Ready", 1.0)
        self.model = ModelFacts("m", 2, 8, 100, "float32", 100, [])
        self.capacity_tokens: int | None = None
        self.registry = Registry([])
        self.vectors: dict[str, Any] = {}
        self.use = VectorUse()
        self.tokenizer = None
        self.requests: dict[str, GenerateRequest] = {}
        self.steered: list[tuple[str, int]] = []
        self.steering: asyncio.Event | None = None
        self.loses_rows = False
        self._answers: dict[str, asyncio.Future[Exception | None]] = {}
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def become(self, state: Any) -> None:
        self.status = Status(state, f"It is {state}.", 0.0)
        for listener in list(self._listeners):
            listener()

    def end(self, run: Run, error: Exception | None = None) -> None:
        self._answers[run.id].set_result(error)

    async def generate(self, request: GenerateRequest, sink: Any) -> AsyncIterator[TokenStep]:
        self.requests[request.run] = request
        answer = self._answers.setdefault(request.run, asyncio.get_running_loop().create_future())
        if (error := await answer) is not None:
            raise error
        if not self.loses_rows:
            sink(RowBlock(request.run, 0, [0] * 5, [], np.empty((5, 0, 2), dtype=np.float32)))
        yield TokenStep([5], [None], [None], "stop", None)

    async def steer(self, run: str, rev: int, _actions: Any) -> None:
        self.steered.append((run, rev))
        if self.steering is not None:
            await self.steering.wait()


class Table:
    """A table with its engine, and runs by the names that the test gives them."""

    def __init__(self, **limits: Any) -> None:
        self.engine = Engine()
        self.table = RunTable(cast(EngineService, self.engine), RunLimits(**limits), Telemetry())

    async def start(self, tokens: int = 10, wake: Callable[[], None] = lambda: None) -> Run:
        frame = Start(
            id="x", messages=[ChatMessage(role="user", content="hi")], sampling=Sampling(max_tokens=tokens)
        )
        return await self.table.admit(frame, wake)


class Texts:
    def next(self, _token: int) -> str:
        return "."


@pytest.fixture(autouse=True)
def prompts_of_five_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    from steersight.protocol.messages import Prompt

    prompt = Prompt(ids=[1, 2, 3, 4, 5], texts=list("abcde"), spans=[])
    monkeypatch.setattr(table_module, "build_prompt", lambda *_args, **_more: (prompt, Texts()))


def place(run: Run) -> int | None:
    return next((e.position for e in reversed(run.log.events) if isinstance(e, QueuedEvent)), None)


def ending(run: Run) -> FinishedEvent:
    event = run.log.events[-1]
    assert isinstance(event, FinishedEvent)
    return event


MakeTable = Callable[..., Table]


@pytest_asyncio.fixture
async def table() -> AsyncIterator[MakeTable]:
    """Makes tables, and lets nothing of them go on after the test."""
    made: list[Table] = []

    def make(**limits: Any) -> Table:
        made.append(Table(**limits))
        return made[-1]

    yield make
    for one in made:
        await one.table.end_all()


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_runs_beyond_the_places_wait_in_the_order_of_asking(table: MakeTable) -> None:
    t = table(max_runs=2, max_queue=2)
    first, second, third, fourth = [await t.start() for _ in range(4)]
    await settle()
    assert (first.begun, second.begun, third.begun, fourth.begun) == (True, True, False, False)
    assert [place(run) for run in (first, second, third, fourth)] == [None, None, 1, 2]
    with pytest.raises(FrameError, match="2 replies and 2 more are waiting") as refused:
        await t.start()
    assert (refused.value.code, refused.value.id) == ("busy", "x")
    t.engine.end(second)
    await settle()
    assert third.begun
    assert (place(third), place(fourth)) == (0, 1)
    # Who gives up its place lets the others move up, and never was in the engine.
    fifth = await t.start()
    fourth.cancel()
    assert ending(fourth).reason == "cancelled"
    assert place(fifth) == 1
    assert fourth.id not in t.engine.requests


async def test_runs_wait_for_room_in_the_kv_cache(table: MakeTable) -> None:
    t = table(max_runs=8)
    t.engine.capacity_tokens = 40
    with pytest.raises(FrameError, match="may come to 65 tokens, and the engine's KV cache holds 40"):
        await t.start(tokens=60)
    first, second, third = await t.start(20), await t.start(20), await t.start(5)
    # 25 + 25 is too much; and nobody overtakes.
    assert (first.begun, second.begun, third.begun) == (True, False, False)
    await settle()
    t.engine.end(first)
    await settle()
    assert (second.begun, third.begun) == (True, True)


async def test_a_run_that_was_steered_while_it_waited_begins_with_that(table: MakeTable) -> None:
    t = table(max_runs=1)
    first, second = await t.start(), await t.start()
    second.steer(Steer(run=second.id, rev=7, strengths={}), [])
    await settle()
    t.engine.end(first)
    await settle()
    assert t.engine.requests[second.id].rev == 7
    assert t.engine.steered == [], "there was nothing to steer yet"


async def test_while_the_engine_takes_one_state_only_the_newest_waits(table: MakeTable) -> None:
    t = table()
    run = await t.start()
    t.engine.steering = asyncio.Event()
    for rev in (1, 2, 3):
        run.steer(Steer(run=run.id, rev=rev, strengths={}), [])
        await settle()
    t.engine.steering.set()
    await settle()
    assert t.engine.steered == [(run.id, 1), (run.id, 3)]


async def test_a_run_that_nobody_watches_ends_after_the_grace_time(table: MakeTable) -> None:
    def wake() -> None:
        pass

    t = table(grace_seconds=0.05)
    run = await t.start(wake=wake)
    await settle()
    t.table.unwatch(run, wake)
    assert t.table.find(run.id) is run
    # Somebody comes back in time.
    t.table.watch(run, wake)
    await asyncio.sleep(0.1)
    assert not run.done
    t.table.unwatch(run, wake)
    async with asyncio.timeout(5):
        await run.over()
    assert ending(run).reason == "cancelled"
    # It is kept for as long again, and then forgotten.
    assert t.table.find(run.id) is run
    await asyncio.sleep(0.1)
    assert t.table.find(run.id) is None
    assert t.table.live == {}


async def test_finished_runs_are_not_kept_without_end(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "MAX_KEPT", 3)
    t = table()
    runs = []
    for _ in range(5):
        runs.append(await t.start())
        await settle()
        t.engine.end(runs[-1])
        await settle()
    assert [t.table.find(run.id) is not None for run in runs] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (EngineLostError("The engine is gone."), "engine_failed", "The engine is gone."),
        (RunFailedError("Layer 3 raised."), "steering_failed", "Layer 3 raised."),
        (ValueError("odd"), "internal", "The reply could not be written: odd"),
    ],
)
async def test_what_goes_wrong_is_the_runs_own_error(
    table: MakeTable, error: Exception, code: str, sentence: str
) -> None:
    t = table()
    run, neighbour = await t.start(), await t.start()
    await settle()
    t.engine.end(run, error)
    await settle()
    said = ending(run).error
    assert said is not None
    assert (ending(run).reason, said.code, said.message) == ("error", code, sentence)
    assert not neighbour.done


async def test_rows_that_never_came_are_named_at_the_end(table: MakeTable) -> None:
    t = table()
    t.engine.loses_rows = True
    run = await t.start()
    await settle()
    t.engine.end(run)
    await settle()
    assert ending(run).reason == "stop"
    gaps = [event for event in run.log.events if isinstance(event, GapEvent)]
    # Five tokens of prompt and one of reply, which was never an input.
    assert [(gap.start, gap.count) for gap in gaps] == [(0, 5)]


async def test_steering_that_cannot_be_applied_ends_the_run(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = table()
    run = await t.start()
    await settle()

    async def refuse(*_: Any) -> None:
        raise RuntimeError("no such layer")

    monkeypatch.setattr(t.engine, "steer", refuse)
    run.steer(Steer(run=run.id, rev=1, strengths={}), [])
    await settle()
    said = ending(run).error
    assert said is not None
    assert said.code == "steering_failed"
    assert "no such layer" in said.message


async def test_waiting_runs_outlive_an_engine_that_is_built_again_but_not_one_that_cannot_be(
    table: MakeTable,
) -> None:
    t = table(max_runs=1)
    first, second = await t.start(), await t.start()
    await settle()
    t.engine.become("loading")
    t.engine.end(first, EngineLostError("gone"))
    await settle()
    assert not second.begun
    with pytest.raises(FrameError, match="The engine is loading"):
        await t.start()
    t.engine.become("ready")
    assert second.begun
    third = await t.start()
    t.engine.become("failed")
    said = ending(third).error
    assert said is not None
    assert (said.code, said.message) == ("engine_failed", "It is failed.")


async def test_draining_takes_nothing_new_lets_live_runs_finish_and_tells_the_rest(table: MakeTable) -> None:
    t = table(max_runs=2)
    quick, long, waiting = await t.start(), await t.start(), await t.start()
    await settle()
    draining = asyncio.create_task(t.table.drain(0.2))
    await settle()
    with pytest.raises(FrameError, match="begins no new replies") as refused:
        await t.start()
    assert refused.value.code == "draining"
    assert ending(waiting).error is not None
    assert not long.done
    t.engine.end(quick)
    await draining
    assert ending(quick).reason == "stop"
    said = ending(long).error
    assert said is not None
    assert (said.code, said.message[:18]) == ("draining", "The server had to ")
