"""Where an engine is in its life, and which steps it can take: the service over engines that never run.

What a person meets when a real engine fails, is killed or ends is tested in test_load_failures.py,
test_engine_faults.py and test_process.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steersight.engine import service, watch
from steersight.engine.errors import ChangeError, EngineNotReadyError, StartError
from steersight.engine.life import CallError
from steersight.engine.options import EngineOptions, ModelFacts
from steersight.engine.service import EngineService
from steersight.engine.status import NEXT_PHASES, EnginePhase, Status
from steersight.engine.watch import TRIES
from steersight.metrics import Registry
from steersight.protocol.messages import EngineStatus

LOADING, READY, DRAINING, FAILED, STOPPED = EnginePhase
MODEL = ModelFacts("m", 2, 8, 100, "float32", 100, [])


# ---------------------------------------------------------------- the table


def test_the_words_are_those_of_the_wire() -> None:
    for phase in EnginePhase:
        told = EngineStatus(**vars(Status(phase, "Words.", 0.5))).model_dump()
        assert told == {"state": phase.value, "stage": "Words.", "progress": 0.5}
    assert [phase.value for phase in EnginePhase] == ["loading", "ready", "draining", "failed", "stopped"]


@pytest.mark.parametrize("to", EnginePhase)
@pytest.mark.parametrize("at", EnginePhase)
def test_every_step_from_phase_to_phase_is_possible_or_refused(at: EnginePhase, to: EnginePhase) -> None:
    possible = {
        LOADING: {READY, DRAINING, FAILED, STOPPED},
        READY: {LOADING, DRAINING, FAILED, STOPPED},
        DRAINING: {STOPPED},
        FAILED: {LOADING, STOPPED},
        STOPPED: set(),
    }
    assert possible == NEXT_PHASES
    status = Status(at, "Before.", 0.25)
    if to in possible[at]:
        progress = {READY: 1.0, DRAINING: 0.25}.get(to, 0.0)
        assert status.become(to, "After.") == Status(to, "After.", progress)
    else:
        with pytest.raises(RuntimeError, match=f"An engine cannot go from {at} to {to}"):
            status.become(to, "After.")


# ---------------------------------------------------------------- the service


async def test_what_workers_fail_to_say_is_not_known_and_not_nothing(tmp_path: Path) -> None:
    """The gauge of leaks would stand at 0 else, whatever is held."""
    held = EngineService(EngineOptions("m", tmp_path))

    async def count() -> dict[str, int]:
        raise CallError("AttributeError: the scheduler has no such thing")

    held._life = SimpleNamespace(count=count)  # type: ignore[assignment]
    assert set((await held.held()).values()) == {-1}
    held._life = None
    assert set((await held.held()).values()) == {0}


class NoLife:
    """An engine that never runs, standing where `Life` does. It starts when the test lets it."""

    ready_at = 0.0

    def __init__(self, model: Any = MODEL) -> None:
        self.model = model
        self.lost: str | None = None
        self.ended = 0
        self.starting = False
        self.started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def start(self, *_: Any) -> Any:
        self.starting = True
        try:
            return await self.started
        finally:
            self.starting = False

    def lose(self, why: str) -> None:
        self.lost = why

    async def end(self, *, kindly: bool) -> None:
        self.ended += 1

    def starts(self) -> None:
        self.started.set_result(SimpleNamespace(dtype="float32", capacity_tokens=40, max_runs=64))

    def breaks(self, error: Exception) -> None:
        self.started.set_exception(error)


class Watched:
    """A service whose engines a test makes start, break and end, and all that it has said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lives: list[NoLife] = []
        self.made = asyncio.Event()
        self.broken: Exception | None = None
        """With what every engine breaks from now on."""
        monkeypatch.setattr(service, "Life", self._make)
        monkeypatch.setattr(service, "read_model", lambda *_: known)
        known = SimpleNamespace(
            model=MODEL, renderer=None, problems=[], registry=Registry(), functions={},
            vectors=SimpleNamespace(vectors={}, files={}, own=set(), problems=[]),
        )  # fmt: skip
        self.engine = EngineService(EngineOptions("model", Path()))
        self.said: list[Status] = []
        self.engine.listen(lambda: self.said.append(self.engine.status))

    def _make(self, _options: Any, model: Any, **_: Any) -> NoLife:
        self.lives.append(NoLife(model))
        if self.broken is not None:
            self.lives[-1].breaks(self.broken)
        self.made.set()
        return self.lives[-1]

    async def life(self) -> NoLife:
        """The next engine that is made."""
        await self.made.wait()
        self.made.clear()
        return self.lives[-1]

    async def ready(self) -> NoLife:
        loading = asyncio.create_task(self.engine.load())
        life = await self.life()
        life.starts()
        await loading
        return life

    @property
    def phases(self) -> list[EnginePhase]:
        """All phases that it has been in, each once in a row."""
        found = [LOADING]
        for status in self.said:
            if status.state is not found[-1]:
                found.append(status.state)
        return found


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


async def test_an_engine_that_starts_is_ready(watched: Watched) -> None:
    await watched.ready()
    assert watched.phases == [LOADING, READY]
    assert watched.engine.status == Status(READY, "Ready", 1.0)


@pytest.mark.parametrize(
    ("error", "why"),
    [(StartError("The disk is full."), "The disk is full."), (OSError("Odd."), "OSError: Odd.")],
)
async def test_an_engine_that_does_not_start_has_failed(watched: Watched, error: Exception, why: str) -> None:
    watched.broken = error
    await watched.engine.load()
    assert watched.phases == [LOADING, FAILED]
    assert watched.engine.status.stage.startswith(f"The engine did not start. {why}")
    assert watched.lives[0].ended == 1
    watched.engine.drain()
    assert watched.engine.status.state is FAILED, "there is nothing to drain"
    await watched.engine.shutdown()
    assert watched.phases == [LOADING, FAILED, STOPPED]


async def test_an_engine_that_is_lost_and_comes_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 0.0)
    first = await watched.ready()
    watched.engine._lose(first, "The engine ended unexpectedly.")  # type: ignore[arg-type]
    assert watched.engine.status.state is LOADING
    watched.made.clear()
    (await watched.life()).starts()
    assert watched.engine._rebuilding is not None
    await watched.engine._rebuilding
    assert watched.phases == [LOADING, READY, LOADING, READY]
    assert watched.engine.restarts == 1


async def test_an_engine_that_cannot_be_brought_back_is_given_up(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 0.0)
    first = await watched.ready()
    watched.broken = OSError("The weights are gone.")
    watched.said.clear()
    engine = watched.engine
    engine._lose(first, "The engine ended unexpectedly.")  # type: ignore[arg-type]
    assert first.lost is not None
    assert first.lost.startswith("The engine ended unexpectedly. It is being started again.")
    assert engine._rebuilding is not None
    await engine._rebuilding
    tries = [status.stage for status in watched.said if status.state is LOADING]
    assert list(dict.fromkeys(tries)) == [
        f"The engine ended unexpectedly. It is being started again (try {number} of {TRIES})."
        for number in range(1, TRIES + 1)
    ]
    assert engine.status.state is FAILED
    assert engine.status.stage.startswith("The engine ended unexpectedly. It was started again 5 times")
    assert "The last time: The weights are gone. The log" in engine.status.stage
    assert [life.ended for life in watched.lives] == [1] * (TRIES + 1)
    assert engine.restarts == 0


async def test_a_ready_engine_drains_and_is_not_brought_back_when_it_is_lost(watched: Watched) -> None:
    life = await watched.ready()
    watched.engine.drain()
    assert watched.engine.status == Status(DRAINING, "The server is about to end", 1.0)
    with pytest.raises(EngineNotReadyError, match="The engine is draining: The server is about to end"):
        watched.engine._serving()
    watched.engine._lose(life, "The engine ended unexpectedly.")  # type: ignore[arg-type]
    assert life.lost == "The engine ended unexpectedly."
    assert watched.engine._rebuilding is None
    await watched.engine.shutdown()
    assert watched.phases == [LOADING, READY, DRAINING, STOPPED]


async def test_an_engine_that_comes_up_while_its_server_drains_takes_no_runs(watched: Watched) -> None:
    """Whoever asks /readyz sends people to a server that says it is ready."""
    loading = asyncio.create_task(watched.engine.load())
    life = await watched.life()
    watched.engine.drain()
    assert watched.engine.status.state is DRAINING
    life.starts()
    await loading
    assert watched.phases == [LOADING, DRAINING]
    assert watched.engine.capacity_tokens == 40
    assert watched.engine.max_runs == 64
    await watched.engine.shutdown()
    assert life.ended == 1


async def test_an_engine_that_fails_to_start_while_its_server_drains(watched: Watched) -> None:
    loading = asyncio.create_task(watched.engine.load())
    life = await watched.life()
    watched.engine.drain()
    life.breaks(StartError("The disk is full."))
    await loading
    assert watched.phases == [LOADING, DRAINING]


async def test_a_lost_engine_is_not_tried_again_once_its_server_drains(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 0.0)
    first = await watched.ready()
    watched.engine._lose(first, "The engine ended unexpectedly.")  # type: ignore[arg-type]
    watched.made.clear()
    second = await watched.life()
    watched.engine.drain()
    second.breaks(OSError("The weights are gone."))
    assert watched.engine._rebuilding is not None
    await watched.engine._rebuilding
    assert watched.phases == [LOADING, READY, LOADING, DRAINING]
    assert watched.lives == [first, second]


# ---------------------------------------------------------------- another model


class Changing:
    """A ready engine whose model is changed to one called `other`."""

    def __init__(self, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
        self.watched, self.engine = watched, watched.engine
        self.told: list[tuple[str, int]] = []
        """What those who leave were told, and how many engines had ended by then."""
        self.engine.on_leaving = self._leave
        before = service.read_model

        def read(options: EngineOptions, report: Any) -> Any:
            if options.model == "unreadable":
                raise OSError("It has no config.json.")
            known = before(options, report)
            return SimpleNamespace(**vars(known) | {"model": replace(MODEL, id=options.model)})

        monkeypatch.setattr(service, "read_model", read)

    async def _leave(self, why: str) -> None:
        self.told.append((why, sum(life.ended for life in self.watched.lives)))

    async def begin(self, model: str = "other") -> asyncio.Task[None]:
        self.watched.made.clear()
        await self.engine.change(EngineOptions(model, Path()))
        assert self.engine._changing is not None
        return self.engine._changing

    @property
    def served(self) -> str:
        assert self.engine.model is not None
        return self.engine.model.id


@pytest.fixture
def changing(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Changing:
    return Changing(watched, monkeypatch)


async def test_the_model_is_changed(watched: Watched, changing: Changing) -> None:
    first = await watched.ready()
    task = await changing.begin()
    assert watched.engine.status.state is LOADING
    assert "being changed to other" in watched.engine.status.stage
    second = await watched.life()
    assert (first.ended, second.model.id, watched.engine.capacity_tokens) == (1, "other", None)
    with pytest.raises(ChangeError, match="The engine is loading"):
        await watched.engine.change(EngineOptions("third", Path()))
    second.starts()
    await task
    assert watched.engine.status == Status(READY, "Ready", 1.0)
    assert (changing.served, watched.engine.options.model) == ("other", "other")
    ((why, ended),) = changing.told
    assert "being changed to other, which ends this reply" in why
    assert ended == 0, "who leaves is told before the engine ends"


async def test_a_model_that_cannot_be_read_changes_nothing(watched: Watched, changing: Changing) -> None:
    life = await watched.ready()
    with pytest.raises(ChangeError, match=r"It cannot be served. It has no config.json."):
        await changing.begin("unreadable")
    assert (watched.phases, changing.told, life.ended) == ([LOADING, READY], [], 0)
    await changing.begin()  # another try is possible


async def test_the_model_before_comes_back_where_the_other_does_not_start(
    watched: Watched, changing: Changing
) -> None:
    await watched.ready()
    task = await changing.begin()
    second = await watched.life()
    second.breaks(StartError("It is too large."))
    third = await watched.life()
    assert (third.model.id, second.ended) == ("model", 1)
    third.starts()
    await task
    why = "other could not be served. It is too large."
    assert watched.engine.status == Status(READY, f"{why} model is served again.", 1.0)
    assert watched.engine.change_failed == why
    assert (changing.served, watched.engine.options.model) == ("model", "model")
    (await changing.begin(), await watched.life())[1].starts()
    assert watched.engine.change_failed == ""


async def test_neither_model_starts(watched: Watched, changing: Changing) -> None:
    await watched.ready()
    watched.broken = StartError("The disk is gone.")
    await (await changing.begin())
    assert watched.engine.status.state is FAILED
    why = "other could not be served. The disk is gone. Neither could model. The disk is gone."
    assert watched.engine.status.stage == why
    # Nothing was served, so there is nothing to go back to.
    await (await changing.begin("third"))
    assert watched.engine.status == Status(FAILED, "third could not be served. The disk is gone.")
    watched.broken = None
    task = await changing.begin("fourth")
    (await watched.life()).starts()
    await task
    assert watched.engine.status.ready


@pytest.mark.parametrize("then", ["starts", "breaks", "drains first"])
async def test_a_server_that_ends_while_its_model_is_changed(
    watched: Watched, changing: Changing, then: str
) -> None:
    first = await watched.ready()
    task = await changing.begin()
    second = await watched.life()
    if then == "drains first":
        watched.engine.drain()
        second.breaks(StartError("It was ended."))
        await task
        assert watched.phases[-1] is DRAINING
    await watched.engine.shutdown()
    assert task.done()
    assert (watched.phases[-1], first.ended >= 1, second.ended >= 1) == (STOPPED, True, True)
    assert watched.lives == [first, second]


async def test_an_engine_that_is_lost_is_not_changed_meanwhile(
    watched: Watched, changing: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 0.0)
    life = await watched.ready()
    watched.engine._lose(life, "The engine ended unexpectedly.")  # type: ignore[arg-type]
    with pytest.raises(ChangeError, match="The engine ended unexpectedly"):
        await changing.begin()
    (await watched.life()).starts()


# ---------------------------------------------------------------- its end


async def test_a_server_that_ends_does_not_wait_for_the_next_try(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 1000.0)
    life = await watched.ready()
    watched.engine._lose(life, "The engine ended unexpectedly.")  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await watched.engine.shutdown()
    assert (watched.phases[-1], watched.engine.abandoned, watched.lives) == (STOPPED, False, [life])
    assert life.ended


async def test_an_engine_that_ends_with_its_server_is_not_brought_back(watched: Watched) -> None:
    life = await watched.ready()
    await watched.engine.shutdown()
    watched.engine._lose(life, "The engine ended unexpectedly.")  # type: ignore[arg-type]
    assert watched.engine._rebuilding is None
    assert life.lost == "The engine ended unexpectedly."


@pytest.mark.parametrize("then", ["starts", "breaks", "is cancelled"])
async def test_shutdown_while_it_loads_is_the_last_word(watched: Watched, then: str) -> None:
    loading = asyncio.create_task(watched.engine.load())
    life = await watched.life()
    if then == "is cancelled":
        loading.cancel()
        await asyncio.wait([loading])
    await watched.engine.shutdown()
    ways: dict[str, Callable[[], None]] = {
        "starts": life.starts, "breaks": lambda: life.breaks(StartError("It was ended.")),
        "is cancelled": lambda: None,
    }  # fmt: skip
    ways[then]()
    await asyncio.wait([loading])
    assert watched.phases == [LOADING, STOPPED]
    assert watched.said[-1] == Status(STOPPED, "Stopped", 0.0)
    await watched.engine.shutdown()
    assert watched.phases == [LOADING, STOPPED], "again is harmless"
