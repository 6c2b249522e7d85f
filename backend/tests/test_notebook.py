"""The notebook's two clients against a server that plays a script, and what they bring home."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from steersight import notebook
from steersight.notebook.loop import Loop
from steersight.notebook.missing import needed
from steersight.protocol import messages as m

from .scripted import Part, Script, finished, playing, rows, started, tokens, welcome

VALUES = [[0.0, 1.0], [2.0, 3.0]]
"""What `scripted.rows` says."""


@contextmanager
def at(*parts: Part) -> Iterator[str]:
    """The address of a scripted server, in a thread of its own: the synchronous client waits in this one."""
    loop = Loop()
    there = playing(*parts)
    try:
        yield loop.wait(there.__aenter__())
        loop.wait(there.__aexit__(None, None, None))
    finally:
        loop.loop.call_soon_threadsafe(loop.loop.stop)


async def whole(script: Script) -> None:
    run = await script.begin()
    await script.say(tokens(run), rows(run), finished(run))


def test_a_run_in_a_few_lines() -> None:
    with at(whole) as address, notebook.open(address) as server:
        assert server.model is not None
        assert (server.model.id, list(server.vectors), list(server.metrics)) == ("tiny", ["joy"], ["norm"])
        assert server.url == f"http://{address}"
        run = server.ask("hi", max_tokens=4)
        assert list(run) == ["c"]
        assert run.wait().text == "c"
        norms = run.rows("norm")
        assert (norms.dims, norms.shape) == (("positions", "layers"), (3, 2))
        assert norms.values[:2].tolist() == VALUES
        assert np.isnan(norms.values[2]).all(), "the last token was never an input"
        assert run.rows().metric == "norm", "there is only one"
        frame = run.frame()
        assert list(frame.columns) == [
            "position", "token", "text", "part", "revision", "layer", "metric", "value",
        ]  # fmt: skip
        assert frame["value"].tolist() == [0, 1, 2, 3]
        assert frame["position"].tolist() == [0, 0, 1, 1]
        assert frame["layer"].tolist() == [0, 1, 0, 1]
        assert frame["text"].tolist() == ["a", "a", "b", "b"]
        assert set(frame["part"]) == {"prompt"}
        assert set(frame["metric"]) == {"norm"}
        assert frame["revision"].tolist() == [0] * 4


async def test_the_same_where_there_is_a_loop() -> None:
    async with playing(whole) as address, notebook.aopen(address) as server:
        run = await server.ask("hi")
        assert [piece async for piece in run] == ["c"]
        assert (await run.wait()).text == "c"
        assert run.rows("norm").values[:2].tolist() == VALUES
        assert run.frame()["value"].tolist() == [0, 1, 2, 3]
        assert "stop" in repr(run)


def test_what_is_asked_for_is_what_is_sent() -> None:
    asked: list[m.Start] = []

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        start = await script.hear(m.Start)
        asked.append(start)
        await script.say(started("r", start.id, ["norm"]))

    with at(part) as address, notebook.open(address) as server:
        server.ask(
            "Tell me.", system="Be brief.", strengths={"joy": 0.1}, metrics=["norm"], max_tokens=7,
            temperature=0.0, stop=("x",), read_cache=False,
        )  # fmt: skip
    (start,) = asked
    assert [(one.role, one.content) for one in start.messages] == [
        ("system", "Be brief."),
        ("user", "Tell me."),
    ]
    assert (start.sampling.max_tokens, start.sampling.temperature, start.sampling.stop) == (7, 0.0, ["x"])
    assert (start.strengths, start.metrics, start.read_cache) == ({"joy": 0.1}, ["norm"], False)


def test_steering_stopping_and_waiting() -> None:
    async def part(script: Script) -> None:
        run = await script.begin()
        steer = await script.hear(m.Steer)
        assert (steer.rev, steer.strengths) == (1, {"joy": 0.2})
        await script.say(
            tokens(run), rows(run, revs=[0, 1]),
            m.Applied(run=run, seq=4, rev=1, position=1, strengths={"joy": 0.2}, settings={}).model_dump(),
        )  # fmt: skip
        elsewhere = m.Applied(run=run, seq=5, rev=7, position=1, strengths={"joy": 0.5}, settings={})
        await script.say(elsewhere.model_dump())
        assert (await script.hear(m.Steer)).rev == 8, "somebody moved a slider meanwhile"
        await script.hear(m.Stop)
        await script.say(finished(run, reason="cancelled"))

    with at(part) as address, notebook.open(address) as server:
        run = server.ask("hi")
        assert run.applied(run.steer({"joy": 0.2})) == 1
        assert run.revisions[1].strengths == {"joy": 0.2}
        assert run.applied(7) == 1
        run.steer({"joy": 0.1})
        run.stop()
        assert run.wait().finished is not None
        assert "cancelled" in repr(run)


def test_any_run_of_the_server_by_its_name() -> None:
    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        notice = m.RunNotice(run="r-9", origin="notebook", prompt="ab", since=1.0, state="finished")
        await script.say(welcome(), m.NotebookRuns(runs=[notice]).model_dump())
        resume = await script.hear(m.Resume)
        await script.say(started(resume.run, "elsewhere", ["norm"]), tokens(resume.run), rows(resume.run))
        await script.say(finished(resume.run))

    with at(part) as address, notebook.open(address) as server:
        while not server.traced:
            continue
        assert server.traced == ["r-9"]
        assert server.run("r-9").wait().rows("norm").values[:2].tolist() == VALUES


def test_errors_come_home_as_sentences() -> None:
    async def part(script: Script) -> None:
        await script.begin()
        start = await script.hear(m.Start)
        refusal = m.Error(
            code=m.ErrorCode.UNKNOWN_VECTOR, message="There is no vector 'nobody'.", id=start.id
        )
        await script.say(refusal.model_dump())

    with at(part) as address, notebook.open(address) as server:
        run = server.ask("hi")
        with pytest.raises(notebook.SteersightError, match="not watched with 'angle': it has norm"):
            run.rows("angle")
        with pytest.raises(notebook.SteersightError, match="no vector 'nobody'"):
            server.ask("hi", strengths={"nobody": 1.0})
    with pytest.raises(notebook.SteersightError, match="No Steersight server answers"):
        notebook.open("127.0.0.1:1")
    with pytest.raises(ValueError, match="is not the address of a server"):
        notebook.open("gopher://x")


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A process that was begun in the background of a script ignores SIGINT; a notebook's kernel does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_ends_the_waiting_and_nothing_else() -> None:
    go_on = threading.Event()

    async def part(script: Script) -> None:
        run = await script.begin()
        await asyncio.to_thread(go_on.wait)
        await script.say(tokens(run), rows(run), finished(run))

    with at(part) as address, notebook.open(address) as server:
        run = server.ask("hi")
        waiting = run.there.inner._changed._waiters

        def interrupt() -> None:
            while not waiting:
                server.vectors  # noqa: B018 - once around the loop
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run.wait()
        go_on.set()
        assert run.wait().text == "c"


def test_the_loop_does_not_wait_for_itself() -> None:
    loop = Loop()
    seen: list[str] = []

    async def inside() -> None:
        assert loop.call(lambda: 1) == 1
        try:
            loop.wait(asyncio.sleep(0))
        except RuntimeError as error:
            seen.append(str(error))

    loop.wait(inside())
    loop.loop.call_soon_threadsafe(loop.loop.stop)
    assert "aopen" in seen[0]


HEAVY = ("torch", "vllm", "nnsight", "pandas", "anywidget", "transformers", "httpx")


def test_importing_it_brings_nothing_heavy() -> None:
    code = f"import sys; import steersight.notebook; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_a_sentence_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match=r"The map needs nothing_of_the_kind.*pip install nothing_of"):
        needed("nothing_of_the_kind", "The map")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with at(whole) as address, notebook.open(address) as server:
        run = server.ask("hi").wait()
        with pytest.raises(ImportError, match=r"A frame needs pandas.*`pip install pandas`"):
            run.frame()


def answering(status: int, said: Any) -> Callable[..., Any]:
    import httpx

    return lambda address, **_: httpx.Response(
        status, content=json.dumps(said), request=httpx.Request("GET", address)
    )


def test_a_model_without_weights_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    for status, said, sentence in (
        (200, {"id": "org/not-here"}, 'hf download org/not-here --include "\\*.json"'),
        (200, None, "does not know its model yet"),
        (401, {"error": "The token is missing"}, "answered 401"),
    ):
        monkeypatch.setattr(httpx, "get", answering(status, said))
        with pytest.raises(notebook.SteersightError, match=sentence):
            notebook.meta_model("127.0.0.1:1")
    monkeypatch.undo()
    with pytest.raises(notebook.SteersightError, match="No Steersight server answers"):
        notebook.meta_model("127.0.0.1:1")
