"""What is written down of a conversation, and what is not."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from steersight import logs
from steersight.engine.service import EngineOptions, EngineService
from steersight.protocol.messages import ChatMessage, Prompt, Sampling, Start
from steersight.runs.kept import KeptRows
from steersight.runs.run import Run
from steersight.runs.watching import Watching
from steersight.telemetry import Telemetry

SECRET = "the lighthouse keeper's name"


@pytest.fixture
def as_before() -> Iterator[None]:
    """Puts the loggers back that `configure` has changed."""
    names = ("steersight", "uvicorn", "steersight.prompts")
    before = [(logging.getLogger(name), dict(vars(logging.getLogger(name)))) for name in names]
    yield
    for logger, was in before:
        logger.handlers, logger.propagate = was["handlers"], was["propagate"]
        logger.setLevel(was["level"])


def configured(kind: str, log_prompts: bool = False) -> io.StringIO:
    """Log into a string instead of standard error."""
    logs.configure(kind, log_prompts)
    written = io.StringIO()
    (handler,) = logging.getLogger("steersight").handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    return written


def say() -> None:
    logger = logging.getLogger("steersight.somewhere")
    logs.connection.set("c1")
    logs.run.set("r1")
    logs.event(logger, logging.INFO, "Something has happened.", tokens=3, why="a\nb")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logger.exception("It %s", "failed")


async def test_json_is_one_object_per_line(as_before: None) -> None:
    written = configured("json")
    await asyncio.create_task(_soon(say))
    first, second = map(json.loads, written.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "INFO", "logger": "steersight.somewhere", "message": "Something has happened.",
        "connection": "c1", "run": "r1", "tokens": 3, "why": "a\nb",
    }  # fmt: skip
    assert second["message"] == "It failed"
    assert "RuntimeError: broken" in second["trouble"]


async def test_text_stays_on_its_line(as_before: None) -> None:
    written = configured("text")
    await asyncio.create_task(_soon(say))
    first, second, *trouble = written.getvalue().splitlines()
    stamp, rest = first.split(" ", 1)
    assert len(stamp) == len("2026-01-31T12:00:00.000Z")
    assert rest == (
        'INFO steersight.somewhere Something has happened. connection="c1" run="r1" tokens=3 why="a\\nb"'
    )
    assert second.endswith('ERROR steersight.somewhere It failed connection="c1" run="r1"')
    assert trouble[-1] == "RuntimeError: broken"


async def _soon(work: object) -> None:
    assert callable(work)
    work()


def a_run(limit: int = 0, asked: int = 50) -> Run:
    """One of an engine that is not there; its prompt and reply hold the secret."""
    engine = EngineService(EngineOptions(model="none", data_dir=Path("none")))
    start = Start(
        id="s", messages=[ChatMessage(role="user", content=SECRET)], sampling=Sampling(max_tokens=asked)
    )
    return Run(
        run_id="r1", start=start, prompt=Prompt(ids=[1], texts=[SECRET], spans=[]), texts=None,  # type: ignore[arg-type]
        actions=[], watching=Watching([], ()), layers=2, engine=engine, max_reply_tokens=limit,
        telemetry=Telemetry(), kept=KeptRows(0),
        ended=lambda _run: None,
    )  # fmt: skip


@pytest.mark.parametrize("log_prompts", [False, True])
async def test_prompts_are_logged_only_where_that_is_asked_for(as_before: None, log_prompts: bool) -> None:
    written = configured("json", log_prompts)
    run = a_run()
    run.begin()
    await run.over()  # soon: there is no engine
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert {line["run"] for line in lines} == {"r1"}
    said = {line["message"]: line for line in lines}
    assert said["A run has started."]["prompt_tokens"] == 1
    assert (said["A run has finished."]["reason"], said["A run has finished."]["tokens"]) == ("error", 0)
    assert (SECRET in written.getvalue()) is log_prompts
    assert ("What was asked." in said) is log_prompts


def test_the_server_logs_what_its_engine_does(tmp_path: Path) -> None:
    """`steersight serve` as a process, with a model that is not one: it says so in JSON, and says no
    secret."""
    (tmp_path / "config.json").write_text("{}")
    command = [sys.executable, "-m", "steersight.cli", "serve", "--port", "0", "--model", str(tmp_path)]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--log-format", "json"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "STEERSIGHT_TOKEN": "a-token-for-tests"},
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stdout is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "The engine's state has changed." in line:
            break
    process.terminate()
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(said[-1])["state"] == "failed"
    assert "a-token-for-tests" not in "".join(said) + rest + out
