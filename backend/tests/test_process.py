"""The server as an operator sees it: a signal ends it soon, with status 0, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from steersight.client import SteersightError, connect

from .conftest import Server
from .wire import greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


class Process:
    """`steersight serve` on a port of the system's choice."""

    def __init__(self, port: int, model: str, log: Path, *words: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        command = [
            sys.executable,
            "-m",
            "steersight.cli",
            "serve",
            "--port",
            str(port),
            "--model",
            model,
            "--drain-seconds",
            "2",
            *words,
        ]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)  # noqa: S603

    def wait_for(self, path: str, text: str) -> None:
        """Wait until an address answers with this text in it."""
        while True:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                if text in httpx.get(self.url + path, timeout=10).text:
                    return
            time.sleep(0.2)

    def family(self) -> list[psutil.Process]:
        """The processes under it."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def end(self, number: signal.Signals) -> tuple[int, list[psutil.Process]]:
        """Send a signal; the exit status, and the processes that were there before and still are."""
        family = self.family()
        os.kill(self.process.pid, number)
        status = self.process.wait(timeout=60)
        return status, psutil.wait_procs(family, timeout=10)[1]


@pytest.fixture
def served(unused_tcp_port: int, model_dir: str, tmp_path: Path) -> Iterator[Process]:
    server = Process(unused_tcp_port, model_dir, tmp_path / "server.log")
    yield server
    for process in [*psutil.Process().children(recursive=True)]:
        if process.pid == server.process.pid:
            process.kill()


@pytest.mark.parametrize(
    ("number", "stage"), [(signal.SIGINT, "Importing vLLM"), (signal.SIGTERM, "Loading the model's weights")]
)
def test_a_signal_while_the_engine_loads(served: Process, number: signal.Signals, stage: str) -> None:
    served.wait_for("/readyz", stage)
    began = time.monotonic()
    status, left = served.end(number)
    assert status == 0, served.log.read_text()
    assert left == []
    # Loading takes half a minute from either stage on; only not waiting for it is this soon.
    assert time.monotonic() - began < 15
    assert "Traceback" not in served.log.read_text()


async def test_from_nothing_to_ready_to_a_signal_while_it_serves(
    unused_tcp_port: int, model_dir: str, tmp_path: Path
) -> None:
    """What the terminal shows, what the file has (the engine's processes write into it as well), and how its
    replies end."""
    file = tmp_path / "logs" / "server.log"
    served = Process(unused_tcp_port, model_dir, tmp_path / "terminal", "--log-file", str(file))
    try:
        await asyncio.to_thread(served.wait_for, "/readyz", '"ready"')
        (core,) = (child for child in served.family() if child.name().endswith("EngineCore"))
        assert os.readlink(f"/proc/{core.pid}/fd/1") == os.readlink(f"/proc/{core.pid}/fd/2") == str(file)
        status, left = await end_while_it_serves(served)
    finally:
        served.process.kill()
    written = file.read_text()
    assert status == 0, written
    assert left == []
    assert served.log.read_text().splitlines() == [
        f"What the server and the engine's libraries have to say goes to {file}.",
        f"Steersight serves {served.url} while the engine loads.",
        "  2%  Reading the model's configuration and tokenizer",
        " 10%  Importing vLLM and NNsight",
        " 30%  Building the model's module tree",
        " 60%  Loading the model's weights",
        " 80%  Reserving the KV cache and warming up",
        "100%  Ready",
        "The server is about to end",
        "Stopped",
    ]
    assert "Triton" in written, "what vLLM has to say at its start"
    assert not re.search(r"Traceback|EngineDeadError", written), written


async def end_while_it_serves(served: Process) -> tuple[int, list[psutil.Process]]:
    """Tell it to end while it writes two replies, one of them nearly done; status, and processes left."""
    async with connect(served.url.replace("http", "ws") + "/ws", patience=0) as client:
        question = [{"role": "user", "content": "Tell me a very long story."}]
        quick = await client.start(question, sampling=greedy(12))
        long = await client.start(question, sampling=greedy(2000))
        async for _ in quick.texts():
            break
        ending = asyncio.create_task(asyncio.to_thread(served.end, signal.SIGTERM))
        await client.until(lambda: client.engine is not None and client.engine.state == "draining")
        with pytest.raises(SteersightError, match="begins no new replies"):
            await client.start(question)
        assert (await quick.wait()).reason == "length", "a reply that was nearly done was not let finish"
        told = (await long.wait()).error
        assert told is not None
        assert (told.code, told.message) == (
            "draining", "The server had to end before this reply did. What was written is kept.",
        )  # fmt: skip
    return await ending


def test_a_signal_while_a_lost_engine_is_started_again(served: Process) -> None:
    served.wait_for("/readyz", '"ready"')
    (core,) = (child for child in served.family() if child.name().endswith("EngineCore"))
    core.kill()
    served.wait_for("/readyz", "is being started again (try 1 of 5). Loading the model's weights")
    began = time.monotonic()
    status, left = served.end(signal.SIGTERM)
    assert status == 0, served.log.read_text()
    assert left == []
    assert time.monotonic() - began < 15


async def test_a_port_that_is_taken(server: Server, model_dir: str, tmp_path: Path) -> None:
    port = int(server.address.rpartition(":")[2])
    second = Process(port, model_dir, tmp_path / "second.log")
    assert await asyncio.to_thread(second.process.wait, 60) == 3
    assert second.log.read_text() == (
        f"Port {port} is taken by another Steersight; end it, or take another port: --port 8001, or "
        "`make run PORT=8001`.\n"
    )
