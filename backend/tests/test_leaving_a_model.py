"""What becomes of runs, and of what is kept for others, when the server's model is changed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from steersight.engine.status import EnginePhase
from steersight.protocol.codec import FrameError
from steersight.protocol.messages import Prompt
from steersight.runs import table as table_module
from steersight.runs.prompt import Built

from .test_run_table import Table, Texts, ending, settle

WHY = "The server's model is being changed to other, which ends this reply. What was written is kept."


@pytest.fixture(autouse=True)
def prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = Prompt(ids=list(range(16)), texts=["a"] * 16, spans=[])
    monkeypatch.setattr(table_module, "build_prompt", lambda *_args, **_more: Built(prompt, Texts(), None))


async def test_all_runs_end_and_say_why() -> None:
    t = Table(max_runs=1)
    done, live, waiting = await t.start(), await t.start(), await t.start()
    t.engine.end(done)
    await settle()
    assert [run.begun for run in (done, live, waiting)] == [True, True, False]
    await t.table.leave_model(WHY)
    for run in (live, waiting):
        error = ending(run).error
        assert error is not None
        assert (error.code, error.message) == ("model_changed", WHY)
    assert ending(done).error is None
    assert (t.table.live, t.table.places.held, t.table.places.waiting) == ({}, 0, 0)
    # Whoever watched it may have it as ever.
    assert t.table.find(live.id) is live
    await t.table.end_all()


async def test_rows_of_one_model_are_not_another_ones() -> None:
    t = Table()
    run = await t.start()
    await settle()
    t.table.kept._blocks[b"key"] = {}
    t.table.kept.size = 350
    t.engine.become(EnginePhase.LOADING)
    assert t.table.kept.size == 350, "the same model is only loaded again"
    t.engine.renderer = object()  # type: ignore[assignment]
    t.engine.become(EnginePhase.LOADING)
    assert (t.table.kept.size, len(t.table.kept)) == (0, 0)
    t.engine.end(run)
    await settle()
    await t.table.end_all()


async def test_a_prompt_in_one_models_tokens_is_not_given_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    t = Table()
    going, go_on = threading.Event(), threading.Event()
    prompt = Prompt(ids=[1], texts=["a"], spans=[])

    def slow(*_args: Any, **_more: Any) -> Any:
        going.set()
        go_on.wait(10)
        return Built(prompt, Texts(), None)

    monkeypatch.setattr(table_module, "build_prompt", slow)
    asked = asyncio.create_task(t.start())
    await asyncio.to_thread(going.wait)
    t.engine.renderer = object()  # type: ignore[assignment]
    go_on.set()
    with pytest.raises(FrameError, match="was changed just now") as refused:
        await asked
    assert (refused.value.code, t.table.live) == ("model_changed", {})
    await t.table.end_all()
