"""Admission, the queue, and how long a run is kept: the table alone, over an engine that obeys.

What a person meets is tested on the real engine in test_delivery.py; here are the cases that need one that
is full, lost or never done.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio
import torch

from steersight.engine.edits import Edits
from steersight.engine.reply import Entry, Reply
from steersight.engine.request import RunRequest, Wants
from steersight.engine.service import (
    Ended,
    EngineLostError,
    EngineService,
    ModelFacts,
    RunFailedError,
)
from steersight.engine.status import EnginePhase, Status
from steersight.engine.step import Alternatives, Step
from steersight.engine.use import VectorUse
from steersight.metrics import Registry
from steersight.protocol.codec import FrameError
from steersight.protocol.messages import (
    MAX_VECTORS,
    Applied,
    ChatMessage,
    ErrorCode,
    Gap,
    Prompt,
    Sampling,
    Start,
    Started,
    StartTogether,
    Steer,
    VectorSetting,
    Watch,
)
from steersight.runs import table as table_module
from steersight.runs.events import AppliedEvent, FinishedEvent, GapEvent, QueuedEvent, WatchedEvent
from steersight.runs.phase import RunPhase
from steersight.runs.prompt import Built
from steersight.runs.run import Run
from steersight.runs.table import RunLimits, RunTable
from steersight.telemetry import Telemetry

from .banks import steering_vector
from .sent import sent


def entry(end: int, token: int, rows: int = 1, rev: int = 0, watch: int = 0) -> Entry:
    """Rows of the positions before `end`, numbers of which nobody asked for, and the token there."""
    named = np.arange(8, dtype="<i4")[None]
    numbers = Step(
        runs=["a"], starts=np.array([end - rows]), counts=np.array([rows]), first=np.array([0]),
        revisions=np.full(rows, rev), tokens=np.array([token]), logprobs=np.zeros(1), ranks=np.ones(1),
        watches=np.array([watch], dtype="<i4"),
        alternatives=Alternatives(np.array([0], dtype="<i4"), named, -named.astype("<f4")),
        metrics=["residual_norm", "update_norm", "cosine_below"], layers=2,
        values=np.zeros((rows, 3, 2), dtype="<f2"), entropy=np.zeros(rows, dtype="<f2"),
    )  # fmt: skip
    return Entry(end - rows, [rev] * rows, token, -1.0, 1, numbers, 0, 0, watch)


class SmallOffer(SimpleNamespace):
    """What runs ask of `Offer`."""

    @property
    def sliders(self) -> dict[str, Any]:
        return {**self.vectors, **self.functions}


class Engine:
    """Writes nothing until a test says so."""

    def __init__(self) -> None:
        self.status = Status(EnginePhase.READY, "Ready", 1.0)
        self.model = ModelFacts("m", 2, 8, 100, "float32", 100, [])
        self.capacity_tokens: int | None = None
        self.max_runs: int | None = 64
        self.offer = SmallOffer(registry=Registry([]), vectors={}, functions={}, own=set(), failed_metrics={})
        self.edits = Edits(self._call)
        self.renderer = self.tokenizer = None
        self.use = VectorUse()
        self.requests: dict[str, RunRequest] = {}
        self.steered: list[tuple[str, int]] = []
        self.steering: asyncio.Event | None = None
        self.watched: list[tuple[str, int, Wants]] = []
        self.loses_rows = False
        self._answers: dict[str, asyncio.Future[Exception | None]] = {}
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def _call(self, _method: str, *_args: Any) -> list[Any]:
        return []

    def become(self, state: EnginePhase) -> None:
        self.status = Status(state, f"It is {state}.", 0.0)
        for listener in list(self._listeners):
            listener()

    def end(self, run: Run, error: Exception | None = None) -> None:
        self._answers[run.id].set_result(error)

    async def generate(self, request: RunRequest, take: Callable[[Entry], None]) -> Ended:
        self.requests[request.run] = request
        answer = self._answers.setdefault(request.run, asyncio.get_running_loop().create_future())
        if (error := await answer) is not None:
            raise error
        take(entry(5, 5, rows=0 if self.loses_rows else 5, rev=request.options.rev))
        return Ended("stop", None)

    async def steer(self, run: str, rev: int, _actions: Any) -> None:
        self.steered.append((run, rev))
        if self.steering is not None:
            await self.steering.wait()

    async def watch(self, run: str, number: int, wants: Wants) -> None:
        self.watched.append((run, number, wants))
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

    def alone(self, token: int) -> str:
        return f"<{token}>"


@pytest.fixture(autouse=True)
def prompts_of_five_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = Prompt(ids=[1, 2, 3, 4, 5], texts=list("abcde"), spans=[])
    monkeypatch.setattr(table_module, "build_prompt", lambda *_args, **_more: Built(prompt, Texts(), None))


def asked(rows_from: int) -> Start:
    return Start(id="x", messages=[ChatMessage(role="user", content="hi")], rows_from=rows_from)


def place(run: Run) -> int | None:
    return next((e.position for e in reversed(run.log.others) if isinstance(e, QueuedEvent)), None)


def ending(run: Run) -> FinishedEvent:
    event = run.log.others[-1]
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


async def test_where_nobody_has_said_how_many_it_is_as_many_as_the_engine_computes(table: MakeTable) -> None:
    t = table(max_queue=1)
    t.engine.max_runs = 2
    runs = [await t.start() for _ in range(3)]
    await settle()
    assert [run.begun for run in runs] == [True, True, False]
    with pytest.raises(FrameError, match="2 replies and 1 more are waiting"):
        await t.start()


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


async def test_runs_that_are_started_together_are_handed_to_the_engine_in_one_turn(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = table(max_runs=3)
    first = await t.start()
    turns: dict[str, int] = {}
    turn, generate = 0, t.engine.generate

    async def noted(request: RunRequest, take: Callable[[Entry], None]) -> Ended:
        turns[request.run] = turn
        return await generate(request, take)

    monkeypatch.setattr(t.engine, "generate", noted)
    starts = [asked(0).model_copy(update={"id": name}) for name in "abc"]
    runs = await t.table.admit_together(StartTogether(id="g", starts=starts), lambda: None)
    alone = await t.start()
    assert [place(run) for run in (*runs, alone)] == [1, 1, 1, 4]
    assert [run.begun for run in (*runs, alone)] == [False] * 4, "not before there are places for all of them"
    t.engine.end(first)
    for turn in range(20):  # noqa: B007 - read where a run begins
        await asyncio.sleep(0)
    assert len({turns[run.id] for run in runs}) == 1
    assert not alone.begun
    runs[1].cancel()
    await settle()
    assert alone.begun
    assert [run.log.client_id for run in runs] == ["a", "b", "c"]


async def test_one_that_waits_with_others_may_be_stopped_alone(table: MakeTable) -> None:
    t = table(max_runs=2)
    first = await t.start()
    starts = [asked(0).model_copy(update={"id": name}) for name in "ab"]
    one, other = await t.table.admit_together(StartTogether(id="g", starts=starts), lambda: None)
    one.cancel()
    assert other.begun, "there is room for one"
    other.cancel()
    first.cancel()
    await settle()
    assert (t.table.live, t.table.places.held, t.table.places.waiting) == ({}, 0, 0)


async def test_a_run_that_was_steered_while_it_waited_begins_with_that(table: MakeTable) -> None:
    t = table(max_runs=1)
    first, second = await t.start(), await t.start()
    second.steer(Steer(run=second.id, rev=7, strengths={}), [])
    await settle()
    t.engine.end(first)
    await settle()
    assert t.engine.requests[second.id].options.rev == 7
    assert t.engine.steered == [], "there was nothing to steer yet"


def states(frames: list[Any]) -> list[tuple[int, Any, Any]]:
    """Revision, strengths and settings of what says them, as a client has it."""
    return [
        (getattr(frame, "rev", 0), frame.strengths, frame.settings)
        for frame in sent(frames)
        if isinstance(frame, Started | Applied)
    ]


async def test_every_revision_that_has_a_row_says_what_it_is(rows: Rows) -> None:
    """Those that were replaced before the engine took them are never heard of, by whoever reads whenever."""
    run = rows.run
    reply = {"joy": VectorSetting(scope="reply")}
    rows.step(5, 5, rows=5)
    for rev in (1, 2, 3):
        run.steer(Steer(run=run.id, rev=rev, strengths={"joy": rev / 8, "sad": 0.0}, settings=reply), [])
    await settle()  # in one turn of the loop: the first two have been replaced
    rows.step(6, 6, rev=3)
    await rows.steer(4)
    await rows.steer(5)  # both are with the engine, which computes no row with the first
    rows.step(7, 7, rev=5)
    rows.confirm(3)
    told = [(0, {"joy": 0.25}, {}), (3, {"joy": 0.375, "sad": 0.0}, reply), (5, {}, {})]
    assert states(run.log.frames_since(0)[0]) == told
    (begun,) = [frame for frame in sent(run.log.frames_since(0)[0]) if isinstance(frame, Started)]
    assert begun.sampling == Sampling(max_tokens=95, seed=7), "there is room for 100 tokens"


async def test_a_run_that_begins_with_a_later_revision_says_what_that_is(table: MakeTable) -> None:
    t = table(max_runs=1)
    first, second = await t.start(), await t.start()
    for rev in (1, 2):
        second.steer(Steer(run=second.id, rev=rev, strengths={"joy": rev / 4}), [])
    await settle()
    t.engine.end(first)
    await settle()
    t.engine.end(second)
    await settle()
    assert states(second.log.frames_since(0)[0]) == [(0, {}, {}), (2, {"joy": 0.5}, {})]
    assert applied(second) == [(2, 0)]


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


def watched(run: Run) -> list[tuple[int, list[str], int]]:
    """Position, metrics and number of alternatives of each change that has a row."""
    return [(e.position, e.metrics, e.alternatives) for e in run.log.others if isinstance(e, WatchedEvent)]


def columns(run: Run) -> list[tuple[int, int, list[str], bool]]:
    """First position, rows, metrics, and whether there are entropies, of each stretch of rows."""
    frames = sent(run.log.frames_since(0)[0])
    return [
        (frame.start, frame.count, frame.metrics, frame.entropy is not None)
        for frame in frames
        if frame.type == "rows"
    ]


async def test_rows_change_their_columns_where_the_engine_says_so(rows: Rows) -> None:
    """The newest of what is asked for at once wins; what a row was computed with comes from its entry,
    however     late; and a run that asks for alternatives only has rows without numbers."""
    run, table = rows.run, rows.table
    metrics = run.log.metrics
    rows.step(5, 5, rows=5)
    for names in (["update_norm"], [], ["cosine_below", "update_norm"]):
        table.watch_with(Watch(run=run.id, metrics=names), run)
    await settle()
    assert [(run, number, wants.metrics) for run, number, wants in rows.engine.watched] == [
        (run.id, 3, ("update_norm", "cosine_below"))
    ]
    rows.step(6, 6)  # computed before the engine was told
    table.watch_with(Watch(run=run.id, metrics=[], alternatives=3), run)
    await settle()
    rows.step(7, 7, watch=3)
    rows.step(8, 8, watch=4)
    rows.step(9, 9, watch=4)
    rows.confirm(5)
    pair = ["update_norm", "cosine_below"]
    assert watched(run) == [(6, pair, 0), (7, [], 3)]
    assert columns(run) == [(0, 6, metrics, True), (6, 1, pair, False), (7, 2, [], False)]
    named = [frame for frame in sent(run.log.frames_since(0)[0]) if frame.type == "alternatives"]
    assert [(frame.start, frame.count, frame.top) for frame in named] == [(7, 2, 3)]
    assert named[0].new_ids == [0, 1, 2]


async def test_a_step_whose_numbers_were_lost_says_all_the_same_what_is_watched(rows: Rows) -> None:
    run, table = rows.run, rows.table
    rows.step(5, 5, rows=5)
    table.watch_with(Watch(run=run.id, metrics=[], alternatives=2), run)
    await settle()
    lost = entry(6, 6, watch=1)
    assert lost.step is not None
    rows._release(rows.reply.take(lost._replace(step=replace(lost.step, alternatives=None, lost=True))))
    rows.step(7, 7, watch=1)
    rows.confirm(3)
    assert watched(run) == [(5, [], 2)]
    assert [(e.start, e.count) for e in run.log.others if isinstance(e, GapEvent)] == [(5, 1)]
    assert columns(run)[1:] == [(6, 1, [], False)]


async def test_a_waiting_run_begins_with_what_is_watched_last(table: MakeTable) -> None:
    t = table(max_runs=1)
    first, second = await t.start(), await t.start()
    for count in (1, 2):
        t.table.watch_with(Watch(run=second.id, metrics=["residual_norm"], alternatives=count), second)
    await settle()
    assert watched(second) == []
    t.engine.end(first)
    await settle()
    options = t.engine.requests[second.id].options
    assert (options.watch, options.wants.metrics, options.wants.alternatives) == (2, ("residual_norm",), 2)
    assert t.engine.watched == [], "the engine knew of it from the start"


async def test_what_cannot_be_watched_is_refused_and_changes_nothing(table: MakeTable) -> None:
    t = table()
    run = await t.start()
    await settle()
    before = run.watching
    for asked, code, words in (
        (Watch(run=run.id, metrics=["no_such"]), "unknown_metric", "no metric 'no_such'; there are resid"),
        (Watch(run=run.id, metrics=["lens_kl"]), "invalid", "needs the logit lens"),
    ):
        with pytest.raises(FrameError, match=words) as refused:
            t.table.watch_with(asked, run)
        assert refused.value.code == code
    assert run.watching is before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_module, "MAX_WATCHES", 1)
        t.table.watch_with(Watch(run=run.id), run)
        with pytest.raises(FrameError, match="changed 1 times"):
            t.table.watch_with(Watch(run=run.id), run)
    run.cancel()
    with pytest.raises(FrameError, match="has ended"):
        t.table.watch_with(Watch(run=run.id), run)


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
    gaps = [event for event in run.log.others if isinstance(event, GapEvent)]
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
    t.engine.become(EnginePhase.LOADING)
    t.engine.end(first, EngineLostError("gone"))
    await settle()
    assert not second.begun
    with pytest.raises(FrameError, match="The engine is loading"):
        await t.start()
    t.engine.become(EnginePhase.READY)
    assert second.begun
    third = await t.start()
    t.engine.become(EnginePhase.FAILED)
    said = ending(third).error
    assert said is not None
    assert (said.code, said.message) == ("engine_failed", "It is failed.")


async def test_stop_in_the_turn_in_which_a_run_begins(table: MakeTable) -> None:
    """Its task never takes a step then, and no `finally` in it runs: the place and the KV cache that it holds
    come back all the same."""
    t = table(max_runs=1)
    t.engine.capacity_tokens = 40
    first, second, third = [await t.start() for _ in range(3)]
    await settle()
    t.engine.end(first)
    # The line moves up in a callback: whoever watches is woken in the same turn, and stops it at once.
    second.watchers.add(lambda: second.begun and second.cancel())
    await settle()
    assert first.done
    assert second.id not in t.engine.requests, "the task had begun"
    assert (second.done, ending(second).reason) == (True, "cancelled")
    assert second.id not in t.table.live
    assert third.begun
    third.cancel()
    await settle()
    assert (t.table.live, t.table.places.held, t.table.places.tokens) == ({}, 0, 0)


async def test_a_run_that_begins_and_is_stopped_at_once_ends(table: MakeTable) -> None:
    t = table()
    run = await t.start()
    run.cancel()
    async with asyncio.timeout(5):
        await run.over()
    assert (run.done, ending(run).reason, run.phase) == (True, "cancelled", RunPhase.FINISHED)
    assert (t.table.live, t.table.places.held) == ({}, 0)


async def test_a_task_that_is_cancelled_from_outside_gives_its_place_back(table: MakeTable) -> None:
    t = table()
    run = await t.start()
    await settle()
    assert run._stream_task is not None
    run._stream_task.cancel()
    await settle()
    assert (run.done, t.table.live, t.table.places.held) == (True, {}, 0)


async def test_a_run_whose_end_cannot_be_noted_gives_its_place_back(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = table(max_runs=1)
    first, second = await t.start(), await t.start()
    await settle()

    def broken(*_: Any) -> None:
        raise RuntimeError("The disk for the log is full.")

    monkeypatch.setattr(t.table.telemetry, "run_finished", broken)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    t.engine.end(first)
    await settle()
    asyncio.get_running_loop().set_exception_handler(None)
    assert second.begun


async def test_a_phase_that_cannot_follow_is_refused(table: MakeTable) -> None:
    t = table()
    run = await t.start()
    with pytest.raises(RuntimeError, match="cannot go from writing to writing"):
        run.begin()
    run.cancel()
    await settle()
    with pytest.raises(RuntimeError, match="cannot go from finished to writing"):
        run.begin()


async def test_a_client_that_is_gone_does_not_free_the_thread_that_reads_its_prompt(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads cannot be stopped: whoever asks and leaves, again and again, gets no more of them."""
    t = table()
    reading = 0
    go_on = threading.Event()

    def slowly(*_args: Any, **_more: Any) -> Any:
        nonlocal reading
        reading += 1
        go_on.wait()
        raise FrameError(ErrorCode.INVALID, "Never mind.")

    monkeypatch.setattr(table_module, "build_prompt", slowly)
    try:
        for _ in range(6):
            asking = asyncio.create_task(t.start())
            await settle()
            asking.cancel()
            await asyncio.wait([asking])
        assert reading <= table_module.PROMPTS_AT_ONCE
    finally:
        go_on.set()


async def test_what_a_vector_is_built_from_stands_in_the_same_line(table: MakeTable) -> None:
    t = table(max_runs=2, max_queue=0)
    first = await t.start()
    order: list[str] = []

    async def build(name: str) -> None:
        async with t.table.places.place(30):
            order.append(name)
            await asyncio.sleep(0)

    a, b = asyncio.create_task(build("a")), asyncio.create_task(build("b"))
    second = await t.start()  # there is room for it: only runs count towards the queue
    await settle()
    assert order == ["a", "b"]
    assert t.table.places.held == 2
    assert second.begun
    await asyncio.gather(a, b)
    for run in (first, second):
        run.cancel()
    await settle()
    assert (t.table.places.held, t.table.places.waiting) == (0, 0)


class Rows:
    """An engine's run whose reply stop strings may end: a test says what comes when."""

    def __init__(self, run: Run, made: Table) -> None:
        self.run, self.engine, self.table = run, made.engine, made.table
        self.reply = Reply(run.prompt_tokens, None)
        self.take: Callable[[Entry], None] = lambda _entry: None
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def _release(self, released: list[Entry]) -> None:
        for one in released:
            self.take(one)

    def step(self, end: int, token: int, rows: int = 1, rev: int = 0, watch: int = 0) -> None:
        """The worker has computed the rows before `end`, and drawn the token there."""
        self._release(self.reply.take(entry(end, token, rows, rev, watch)))

    async def steer(self, rev: int) -> None:
        """The engine has been told of another state."""
        self.run.steer(Steer(run=self.run.id, rev=rev, strengths={}), [])
        await settle()

    def confirm(self, tokens: int) -> None:
        """vLLM has found no stop string in so many tokens."""
        self._release(self.reply.confirm(tokens))

    async def end(self, ids: list[int], stop: str | None = None) -> None:
        """The reply is over."""
        self._release(self.reply.finish(ids))
        self.ended.set_result(Ended("stop" if stop else "length", stop))
        await settle()


async def followed(t: Table, monkeypatch: pytest.MonkeyPatch, frame: Start) -> Rows:
    """A run that has begun, of an engine that computes what the test says."""
    started = asyncio.Event()
    sent: Rows

    async def generate(request: RunRequest, take: Callable[[Entry], None]) -> Ended:
        t.engine.requests[request.run] = request
        sent.take = take
        started.set()
        return await sent.ended

    monkeypatch.setattr(t.engine, "generate", generate)
    sent = Rows(await t.table.admit(frame, lambda: None), t)
    await started.wait()
    return sent


@pytest_asyncio.fixture
async def rows(table: MakeTable, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rows]:
    t = table()
    frame = Start(
        id="x", messages=[ChatMessage(role="user", content="hi")], entropy=True,
        sampling=Sampling(max_tokens=1000, seed=7), strengths={"joy": 0.25},
    )  # fmt: skip
    t.engine.offer.vectors = {"joy": steering_vector("joy", {1: torch.ones(8)})}
    yield await followed(t, monkeypatch, frame)


def positions(run: Run) -> list[int]:
    return run.log.rows.positions.tolist()


def applied(run: Run) -> list[tuple[int, int]]:
    return [(e.rev, e.position) for e in run.log.others if isinstance(e, AppliedEvent)]


@pytest.mark.parametrize("how", ["stop string", "cancelled", "failed"])
async def test_no_row_beyond_the_end_of_the_reply_is_ever_in_the_log(rows: Rows, how: str) -> None:
    """The engine had begun two more steps, with a new revision, when the reply ended."""
    run = rows.run
    rows.step(5, 5, rows=5)
    assert positions(run) == [], "its token is not known to belong to the reply yet"
    rows.confirm(1)
    assert positions(run) == [0, 1, 2, 3, 4]
    rows.step(6, 6)
    rows.confirm(2)
    assert positions(run) == [0, 1, 2, 3, 4, 5]
    rows.step(7, 7)
    await rows.steer(3)
    rows.step(8, 8, rev=3)
    rows.step(9, 9, rev=3)
    if how == "stop string":
        await rows.end([5, 6, 7], "\n")
    elif how == "cancelled":
        rows.confirm(3)
        run.cancel()
    else:
        rows.confirm(3)
        run.fail(ErrorCode.STEERING_FAILED, "Layer 3 raised.")
    await settle()
    assert run.done
    # Five tokens of prompt and three of reply.
    assert positions(run) == [0, 1, 2, 3, 4, 5, 6]
    assert applied(run) == []
    assert not any(isinstance(e, GapEvent) for e in run.log.others)
    end = run.log.end
    rows.step(10, 10)
    rows.confirm(9)
    assert run.log.end == end, "rows came after the end"


async def test_a_row_that_was_lost_is_named(rows: Rows) -> None:
    rows.step(5, 5, rows=5)
    rows.step(6, 6, rows=0)  # it travelled without its rows
    await rows.steer(1)
    rows.step(7, 7, rev=1)
    await rows.end([5, 6, 7])
    gaps = [(e.start, e.count) for e in rows.run.log.others if isinstance(e, GapEvent)]
    assert gaps == [(5, 1)]
    assert positions(rows.run) == [0, 1, 2, 3, 4, 6]
    assert applied(rows.run) == [(1, 6)]


LONG = 400


@pytest.fixture
def long_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = Prompt(ids=list(range(LONG)), texts=["."] * LONG, spans=[])
    monkeypatch.setattr(table_module, "build_prompt", lambda *_args, **_more: Built(prompt, Texts(), None))


@pytest.mark.usefixtures("long_prompts")
async def test_rows_from_a_position_on(table: MakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before is not asked of the engine, is said not to be computed, and is nobody's later."""
    t = table()
    first = await followed(t, monkeypatch, asked(rows_from=100))
    options = t.engine.requests[first.run.id].options
    assert options.first_row == 100
    # All that is wanted would have to be computed, and that is much: the engine may read what it has.
    assert options.read_most is None
    first.step(LONG, 5, rows=LONG - 100)
    first.confirm(1)
    assert positions(first.run) == list(range(100, LONG))
    # Of the block with position 100 a part is missing.
    state, columns = first.run._past, first.run.watching.columns
    assert [t.table.kept.reach(columns, range(LONG), state, at) for at in (0, 100, 112)] == [0, 96, LONG]
    # Whoever wants what is kept gets that, and nothing before it.
    second = await followed(t, monkeypatch, asked(rows_from=120))
    assert t.engine.requests[second.run.id].options.read_most == LONG
    second.step(LONG, 5, rows=8)
    second.confirm(1)
    assert positions(second.run) == list(range(120, LONG))
    # One position of a block that is not kept.
    third = await followed(t, monkeypatch, asked(rows_from=111))
    third.step(LONG, 5, rows=8)
    third.confirm(1)
    assert positions(third.run) == list(range(112, LONG))
    whole = await followed(t, monkeypatch, asked(rows_from=0))
    whole.step(LONG, 5, rows=8)
    whole.confirm(1)
    assert positions(whole.run) == list(range(112, LONG))
    none = await followed(t, monkeypatch, asked(rows_from=10_000))
    assert t.engine.requests[none.run.id].options.first_row == LONG
    assert t.engine.requests[none.run.id].options.read_most is None
    none.step(LONG, 5, rows=0)
    none.step(LONG + 1, 5)
    none.confirm(2)
    assert positions(none.run) == [LONG]
    gaps = [
        [(e.start, e.count, e.cached) for e in run.run.log.others if isinstance(e, GapEvent)]
        for run in (first, second, third, whole, none)
    ]
    assert gaps == [
        [(0, 100, True)], [(0, 120, True)], [(0, 111, True), (111, 1, True)],
        [(at, 16, True) for at in range(0, 112, 16)], [(0, LONG, True)],
    ]  # fmt: skip


@pytest.mark.usefixtures("long_prompts")
@pytest.mark.parametrize("steered", [False, True])
async def test_rows_are_not_kept_by_what_may_not_have_acted_before_them(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch, steered: bool
) -> None:
    """A slider was moved while the prompt was read, at one of the positions whose rows were not wanted."""
    t = table()
    one = await followed(t, monkeypatch, asked(rows_from=48))
    if steered:
        await one.steer(1)
    one.step(LONG, 5, rows=LONG - 48, rev=int(steered))
    one.confirm(1)
    assert positions(one.run) == list(range(48, LONG))
    assert applied(one.run) == ([(1, 48)] if steered else [])
    assert (len(t.table.kept) > 0) is not steered


async def test_a_log_keeps_nothing_of_the_other_runs_of_a_step(rows: Rows) -> None:
    """A step's numbers are one array for all its runs; one long reply would keep those of all short ones."""
    one = entry(5, 5, rows=5)
    assert one.step is not None
    assert one.step.entropy is not None
    step = [weakref.ref(one.step.values), weakref.ref(one.step.entropy)]
    rows.take(one)
    del one
    assert positions(rows.run) == [0, 1, 2, 3, 4]
    assert all(array() is None for array in step)


async def test_a_step_that_never_came_costs_rows_and_no_token(rows: Rows) -> None:
    rows.step(5, 5, rows=5)
    rows.step(7, 7)
    await rows.end([5, 6, 7])
    log = rows.run.log
    assert log.tokens.ids.tolist() == [5, 6, 7]
    assert [(e.start, e.count) for e in log.others if isinstance(e, GapEvent)] == [(5, 1)]
    assert positions(rows.run) == [0, 1, 2, 3, 4, 6]


async def test_live_logs_together_stay_within_their_budget(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "MAX_LIVE_BYTES", 64_000)
    t = table()
    runs = [await t.start() for _ in range(4)]
    width = 2 * 3 * 2  # bytes of three metrics of two layers
    for step in range(1000):
        for run, rows in zip(runs, (1, 2, 4, 8), strict=True):
            run.log.add_rows(step * rows, [0] * rows, bytes(rows * width))
        assert sum(run.log.size for run in runs) <= 64_000 * (1 + 1 / 64) + 8 * width
    small, _, _, large = (run.log for run in runs)
    assert small.rows_at(0, 1, 0)[0]["type"] == "rows", "the lightest was trimmed"
    (gap, *_) = sent(large.rows_at(0, 1000, 0))
    assert isinstance(gap, Gap)
    assert (gap.start, gap.kept) == (0, False)
    trimmed = t.table.telemetry.registry.get_sample_value("steersight_rows_trimmed_total")
    assert trimmed is not None
    assert trimmed >= gap.count
    # What is not live counts no longer.
    for run in runs:
        run.cancel()
    await settle()
    fresh = await t.start()
    for position in range(4000):
        fresh.log.add_rows(position, [0], bytes(width))
    assert fresh.log.rows_at(0, 1, 0)[0]["type"] == "rows"


async def test_the_rows_of_a_forgotten_run_are_gone_though_somebody_holds_it(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "MAX_KEPT_BYTES", 1000)
    t = table()
    runs = []
    for _ in range(3):
        run = await t.start()
        runs.append(run)
        run.log.add_rows(0, [0], bytes(800))
        await settle()
        t.engine.end(run)
        await settle()
    assert [run.log.size > 0 for run in runs] == [False, False, True]


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


async def test_more_vectors_than_can_be_at_work_on_one_reply_are_refused_in_a_sentence() -> None:
    table = Table()
    vectors = {f"v{n}": steering_vector(f"v{n}", {1: torch.ones(8)}) for n in range(MAX_VECTORS + 2)}
    table.engine.offer.vectors = vectors

    def steer(strengths: dict[str, float]) -> int:
        frame = Steer(run="r", rev=1, strengths=strengths)
        return len(table.table.actions(frame, prompt_tokens=5, adapter=None))

    # Others may be named, at 0.
    assert steer({name: float(n >= 2) for n, name in enumerate(vectors)}) == MAX_VECTORS
    with pytest.raises(FrameError, match="18 vectors at once, and 16 are the most") as refused:
        steer(dict.fromkeys(vectors, 0.1))
    assert (refused.value.code, refused.value.field) == (ErrorCode.INVALID, "strengths")
