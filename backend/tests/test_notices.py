"""What clients are told of notebooks' runs: the list, when it is told, and how often."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steersight.protocol import codec
from steersight.protocol.messages import ChatMessage, Hello, NotebookRuns, Resume, Started, Steer, Welcome
from steersight.protocol.messages import Start as StartFrame
from steersight.runs import notices as notices_module
from steersight.runs import telling
from steersight.runs.run import Run

from .scripted import Script, server, started, welcome
from .test_connection import connected
from .test_run_table import MakeTable, Table, settle, table
from .test_run_table import prompts_of_five_tokens as prompts_of_five_tokens

__all__ = ["table"]


async def from_notebook(t: Table, name: str = "t") -> Run:
    """As the door for traces admits one."""
    asked = StartFrame(id=name, messages=[ChatMessage(role="user", content="abcde")])
    (run,) = await t.table._admit([asked], lambda: None, "notebook")
    return run


def told(t: Table) -> list[tuple[str, str, str]]:
    frame = codec.decode_server(t.table.notices.telling.frame())
    assert isinstance(frame, NotebookRuns)
    return [(one.run, one.prompt, one.state) for one in frame.runs]


async def test_a_notebooks_run_is_told_of_with_its_life_as_long_as_it_is_kept(table: MakeTable) -> None:
    t = table(max_runs=1, grace_seconds=0.01)
    chat = await t.start()
    run = await from_notebook(t)
    assert told(t) == [(run.id, "abcde", "waiting")], "nothing is told of a chat's"
    await settle()
    t.engine.end(chat)
    await settle()
    assert told(t) == [(run.id, "abcde", "writing")]
    t.engine.end(run)
    await settle()
    assert told(t) == [(run.id, "abcde", "finished")]
    assert (chat.origin, run.origin) == ("chat", "notebook")
    gone = asyncio.Event()
    t.table.notices.telling.listen(lambda: told(t) or gone.set())
    for wake in list(run.watchers):
        t.table.unwatch(run, wake)
    await asyncio.wait_for(gone.wait(), 10)
    assert t.table.find(run.id) is None


async def test_special_tokens_are_no_part_of_a_beginning_and_a_long_one_is_cut(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices_module, "MAX_BEGINNING", 3)
    t = table()
    t.engine.model = t.engine.model.__class__(**{**vars(t.engine.model), "special_ids": [1]})
    run = await from_notebook(t)
    assert told(t) == [(run.id, "bcd", "writing")]


async def test_only_the_newest_are_told_of_and_changes_of_a_moment_are_told_once(
    table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PAUSE_SECONDS", 3600)
    t = table(max_runs=64)
    heard: list[int] = []
    t.table.notices.telling.listen(lambda: heard.append(len(told(t))))
    runs = [await from_notebook(t) for _ in range(25)]
    await settle()
    assert heard == [1], "the first at once"
    t.table.notices.telling._pause_over()
    assert heard == [1, 20], "the others together"
    t.table.notices.telling._pause_over()
    assert heard == [1, 20], "nothing where nothing has changed"
    assert [name for name, _, _ in told(t)] == [run.id for run in reversed(runs[5:])]


async def test_connections_are_told_and_can_watch_and_steer_it() -> None:
    t = Table()
    async with connected(t) as (socket, _):
        run = await from_notebook(t)
        await socket.until(lambda: socket.of(NotebookRuns))
        socket.say(Resume(run=run.id, epoch="e"), Steer(run=run.id, rev=1, strengths={}))
        await socket.until(lambda: socket.of(Started))
        assert socket.of(Started)[0].origin == "notebook"
        await settle()
        assert run.rev == 1


async def test_who_comes_later_is_told_after_the_welcome() -> None:
    t = Table()
    run = await from_notebook(t)
    async with connected(t) as (socket, _):
        await socket.until(lambda: socket.of(NotebookRuns))
        assert [type(frame) for frame in socket.frames] == [Welcome, NotebookRuns]
        (one,) = socket.of(NotebookRuns)[0].runs
        assert (one.run, one.origin, one.prompt) == (run.id, "notebook", "abcde")


async def test_nobody_hears_of_notebooks_where_there_are_none() -> None:
    t = Table()
    async with connected(t) as (socket, connection):
        await t.start()
        await connection.told()
        assert socket.of(NotebookRuns) == []


async def test_the_python_client_has_the_list_and_watches_one_of_it() -> None:
    notice: dict[str, Any] = {
        "run": "n1", "origin": "notebook", "prompt": "The Eiffel", "since": 1.5, "state": "writing",
    }  # fmt: skip

    async def part(script: Script) -> None:
        await script.hear(Hello)
        await script.say(welcome(), {"type": "notebook_runs", "runs": [notice]})
        await script.hear(Resume)
        await script.say({**started("n1", "t", ["norm"]), "origin": "notebook"})

    async with server(part) as client:
        await client.until(lambda: bool(client.notebook_runs))
        (one,) = client.notebook_runs
        run = await client.watch(one.run)
        assert (one.prompt, run.origin) == ("The Eiffel", "notebook")
        (recorded,) = run.recording().runs
        assert recorded.info.origin == "notebook"
