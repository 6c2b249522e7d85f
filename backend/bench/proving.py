"""What the scripts that prove reliability share: a server of their own, its figures, and a place to write.

Run them from the folder `backend`, as `python -m bench.chaos`; `make prove` does. Each starts a server of its
own on a free port of the loopback interface, prints what it finds, and ends with a status other than 0 when
a promise does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from steersight.address import server_at

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "reliability.md"
MODEL = os.environ.get("STEERSIGHT_MODEL_DIR", str(REPOSITORY / "data/models/smollm2-135m-instruct"))
START_SECONDS = 300


class BrokenPromiseError(AssertionError):
    """Something that the server promises did not hold; the message says what was seen."""


def promise(kept: bool, sentence: str) -> None:
    """Go on only when a promise was kept."""
    if not kept:
        raise BrokenPromiseError(sentence)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed. Raises ValueError on none."""
    if not values:
        raise ValueError("There is no quantile of nothing.")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass
class Target:
    """The server under test."""

    address: str
    """host:port"""
    process: psutil.Process | None = None
    """Where it runs on this machine and was started here."""
    log: Path | None = None
    memory: list[tuple[str, float]] = field(default_factory=list)
    """(when, MiB of the server process without the engine's own ones)"""

    @property
    def url(self) -> str:
        """Of its HTTP side."""
        return f"http://{self.address}"

    async def gauges(self) -> dict[str, float]:
        """All of /metrics, by name and labels as they stand there."""
        async with httpx.AsyncClient() as client:
            text: str = (await client.get(f"{self.url}/metrics", timeout=60)).text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    async def weigh(self, when: str) -> float:
        """MiB of the server process now; kept for the report."""
        if self.process is not None:
            used: float = self.process.memory_info().rss / 2**20
        else:
            used = (await self.gauges()).get("process_resident_memory_bytes", math.nan) / 2**20
        self.memory.append((when, used))
        return used

    async def settled(self, seconds: float) -> float:
        """Wait until no run is live and the engine holds no request; how long that took.

        Raises: BrokenPromiseError when it has not happened after `seconds`.
        """
        began = time.monotonic()
        while True:
            now = await self.gauges()
            live, held = now["steersight_runs_live"], now["steersight_engine_requests"]
            if live == held == 0:
                return time.monotonic() - began
            promise(
                time.monotonic() - began < seconds,
                f"After {seconds:.0f} s {live:.0f} runs are live and the engine holds {held:.0f} requests.",
            )
            await asyncio.sleep(0.25)

    def said(self) -> str:
        """The server's log, of one that was started here."""
        return "" if self.log is None else self.log.read_text(errors="replace")

    def tracebacks(self) -> int:
        """How many stand in it."""
        return self.said().count("Traceback")


@asynccontextmanager
async def serving(
    url: str | None, settings: Mapping[str, object], *, model: str = MODEL, ready: bool = True
) -> AsyncIterator[Target]:
    """The server at `url`, or one of one's own that ends with the block.

    Args:
        url: address of a running server, or None.
        settings: for a server of one's own, as STEERSIGHT_* variables name them, in small letters.
        model: what it serves; a folder that does not exist gives a server whose engine has failed.
        ready: wait for the engine, not only for the process.
    """
    if url is not None:
        yield Target(server_at(url).place)
        return
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        port = address.rpartition(":")[2]
        command = [
            sys.executable, "-m", "steersight.cli", "serve", "--port", port, "--model", model,
            "--data-dir", folder,
        ]  # fmt: skip
        chosen = {f"STEERSIGHT_{name.upper()}": str(value) for name, value in settings.items()}
        started = _start(command, log, chosen)
        target = Target(address, psutil.Process(started.pid), log)
        try:
            await _answers(target, started, "/readyz" if ready else "/healthz")
            yield target
        except BrokenPromiseError:
            print(target.said()[-3000:], file=sys.stderr)
            raise
        finally:
            started.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(started.wait, 60)
            if started.poll() is None:
                started.kill()


def _start(command: list[str], log: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(  # noqa: S603
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | settings
        )


async def _answers(target: Target, started: subprocess.Popen[bytes], path: str) -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as client:
        while True:
            promise(started.poll() is None, f"The server ended: {target.said()[-2000:]}")
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get(target.url + path, timeout=10)
                if answer.status_code == 200:
                    return
                promise(answer.json()["state"] != "failed", f"The engine failed: {answer.text}")
            await asyncio.sleep(0.5)


def machine() -> str:
    """Cores and processor, for the line above a table."""
    name = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{os.cpu_count()} cores of {name}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; numbers stand right."""
    left = [all(isinstance(row[column], str) for row in rows) for column in range(len(head))]
    lines = [
        "| " + " | ".join(head) + " |",
        "| " + " | ".join("---" if words else "---:" for words in left) + " |",
    ]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def write(script: str, text: str, path: Path = DOCUMENT) -> None:
    """Put `text` between the marks that `script` has in a document."""
    first, last = f"<!-- written by backend/bench/{script} -->", "<!-- end -->"
    before, start, rest = path.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise SystemExit(f"{path} has no lines {first} and {last} to write between.")
    path.write_text(f"{before}{first}\n{text}\n{last}{after}", encoding="utf-8")


def report(script: str, text: str, asked_to_write: bool, path: Path = DOCUMENT) -> None:
    """Print what was found, and put it into the document where that was asked for."""
    print(text, flush=True)
    if asked_to_write:
        write(script, text, path)


def golden(direction: str) -> dict[str, bytes]:
    """The bytes of the golden frames of one side, by name."""
    entries = json.loads((REPOSITORY / "backend/tests/golden/frames.json").read_text(encoding="utf-8"))
    return {e["name"]: bytes.fromhex(e["hex"]) for e in entries if e["direction"] == direction}
