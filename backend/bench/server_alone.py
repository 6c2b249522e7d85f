"""What the server itself costs: a pretended engine sends steps, many clients read every frame.

    python -m bench.server_alone [--runs 256] [--hz 60] [--layers 32] [--seconds 60] [--write]

256 connections with one run each, replies of 128 to 384 tokens one after the other, three metrics of 32
layers for every token, a step 60 times a second: what an H100 does with a small model. Told are the share of
a core that the server process takes, how long tokens are on their way from the worker's message to the
client's socket, the pause between two messages to one client, and what the server's memory does. The clients
read in processes of their own, and only decode what they are sent.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import psutil

from .proving import MODEL, REPOSITORY, free_port, machine, quantile, report, table
from .readers import Reader
from .serve import server
from .simulated import TICKS, now

METRICS = ["residual_norm", "update_norm", "cosine_below"]
SHORTEST, LONGEST = 128, 384
"""Tokens of a reply. Each client asks for another number, so that they do not all begin anew together."""
WARM_SECONDS = 5.0
CLIENT_PROCESSES = 2
DOCUMENT = REPOSITORY / "docs" / "performance.md"


@dataclass
class Seen:
    """What one client process has seen after the warm-up."""

    ways: list[int] = field(default_factory=list)
    """Of each token, in ticks."""
    pauses: list[float] = field(default_factory=list)
    """Seconds between two messages that bring tokens to one client."""
    rows: int = 0
    frames: int = 0
    replies: int = 0


class Client:
    """One connection that asks again whenever its reply has ended."""

    def __init__(self, name: str, seen: Seen, counts: Any) -> None:
        self._name = name
        self._seen = seen
        self._counts = counts
        self._tokens = SHORTEST + int(name[1:]) * 37 % (LONGEST - SHORTEST)
        self._asked = 0
        self._newest: float | None = None

    def take(self, reader: Reader, data: bytes) -> None:
        """One message."""
        message = msgpack.unpackb(data)
        seen, at, counts = self._seen, time.monotonic(), self._counts.is_set()
        seen.frames += counts
        match message["type"]:
            case "welcome" | "finished":
                self._ask(reader)
            case "tokens":
                if counts:
                    arrived = now()
                    seen.ways += [arrived - rank for rank in message["ranks"] if rank is not None]
                    if self._newest is not None:
                        seen.pauses.append(at - self._newest)
                self._newest = at
            case "rows":
                seen.rows += message["count"] * counts
            case "error" | "gap":
                raise SystemExit(f"{self._name} was told {message}")

    def _ask(self, reader: Reader) -> None:
        self._seen.replies += self._asked > 0
        self._asked += 1
        self._newest = None
        reader.send(
            {
                "type": "start", "id": f"{self._name}-{self._asked}", "metrics": METRICS,
                "messages": [{"role": "user", "content": f"Tell story {self._name}."}],
                "sampling": {"max_tokens": self._tokens}, "prompt_rows": False,
            }
        )  # fmt: skip


def read(port: int, names: list[str], counts: Any, over: Any, found: Any) -> None:
    """One client process: says that it is there, counts from `counts` to `over`, tells what it has seen."""
    seen = Seen()

    async def everybody() -> None:
        loop = asyncio.get_running_loop()
        readers = []
        for name in names:
            client = Client(name, seen, counts)
            made = await loop.create_connection(
                lambda client=client: Reader("127.0.0.1", port, client.take), "127.0.0.1", port
            )
            readers.append(made[1])
        found.put(None)
        while not over.is_set():
            if any(reader.lost.done() for reader in readers):
                raise SystemExit("The server has closed a connection.")
            await asyncio.sleep(0.1)
        found.put(seen)
        for reader in readers:
            reader.close()

    import uvloop

    uvloop.run(everybody())


def measure(asked: argparse.Namespace) -> str:
    """Run it, and say what came of it."""
    port = free_port()
    command = [
        sys.executable, "-m", "bench.simulated", "--hz", str(asked.hz), "--layers", str(asked.layers), "--",
        "serve", "--port", str(port), "--model", MODEL,
    ]  # fmt: skip
    limits = {"max_runs": asked.runs, "max_connections": asked.runs + 8, "starts_per_minute": 1_000_000}
    environment = {f"STEERSIGHT_{name.upper()}": str(value) for name, value in limits.items()}
    with tempfile.TemporaryDirectory() as folder:
        command = [*command, "--data-dir", folder]
        with server(command, port, "/readyz", Path(folder, "server.log"), environment) as started:
            profiler = _profiler(asked.profile, started.pid)
            text = asyncio.run(_watch(asked, port, psutil.Process(started.pid)))
            if profiler is not None:
                profiler.wait()
            return text


def _profiler(path: str | None, pid: int) -> subprocess.Popen[bytes] | None:
    """py-spy, which begins when the clients have warmed up."""
    if path is None:
        return None
    command = (
        f"sleep {2 * WARM_SECONDS + 2} && py-spy record -p {pid} -d 8 -r 250 -f raw -o {path} --nonblocking"
    )
    return subprocess.Popen(["/bin/sh", "-c", command])  # noqa: S603


async def _watch(asked: argparse.Namespace, port: int, measured: psutil.Process) -> str:
    context = multiprocessing.get_context("spawn")
    found: Any = context.Queue()
    counts, over = context.Event(), context.Event()
    names = [f"c{index}" for index in range(asked.runs)]
    processes = [
        context.Process(
            target=read, args=(port, names[k::CLIENT_PROCESSES], counts, over, found), daemon=True
        )
        for k in range(CLIENT_PROCESSES)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        await asyncio.to_thread(found.get, True, 60)
    await asyncio.sleep(WARM_SECONDS)
    counts.set()
    end = time.monotonic() + asked.seconds
    before, memory = measured.cpu_times(), [measured.memory_info().rss / 2**20]
    every = 60.0 if asked.seconds > 120 else asked.seconds / 2
    while (left := end - time.monotonic()) > 0.1:
        await asyncio.sleep(min(left, every))
        memory.append(measured.memory_info().rss / 2**20)
        print(
            f"{asked.seconds - max(0.0, end - time.monotonic()):.0f} s: {memory[-1]:.0f} MiB", file=sys.stderr
        )
    after = measured.cpu_times()
    over.set()
    seen: list[Seen] = [await asyncio.to_thread(found.get, True, 20) for _ in processes]
    used = (after.user + after.system - before.user - before.system) / asked.seconds
    ways = [way * 1e3 / TICKS for one in seen for way in one.ways]
    pauses = [pause * 1e3 for one in seen for pause in one.pauses]
    tokens = len(ways) / asked.seconds
    rows = [
        ["tokens/s, of those that were made", f"{tokens:.0f} of {asked.runs * asked.hz:.0f}"],
        ["server's processor time for 1,000 tokens", f"{used / tokens * 1e3:.3f} s"],
        ["rows/s", f"{sum(one.rows for one in seen) / asked.seconds:.0f}"],
        ["frames/s", f"{sum(one.frames for one in seen) / asked.seconds:.0f}"],
        ["server process, share of a core", f"{used:.2f}"],
        [
            "from the worker to the client, p50 / p99 / longest",
            f"{quantile(ways, 0.5):.0f} / {quantile(ways, 0.99):.0f} / {max(ways):.0f} ms",
        ],
        [
            "between two messages to one client, p50 / p99",
            f"{quantile(pauses, 0.5):.0f} / {quantile(pauses, 0.99):.0f} ms",
        ],
        [
            f"memory: at first, and after every {every:.0f} s",
            f"{', '.join(f'{size:.0f}' for size in memory)} MiB",
        ],
    ]
    head = (
        f"{asked.runs} runs, {asked.hz:.0f} steps/s, {len(METRICS)} metrics of {asked.layers} layers, "
        f"{asked.seconds:.0f} s, on {machine()} that the clients share:"
    )
    return f"{head}\n\n{table(['what', 'measured'], rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--hz", type=float, default=60.0)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--profile", help="write what py-spy sees of the server to this file")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    asked = parser.parse_args()
    text = measure(asked)
    report("server_alone.py", text, asked.write, DOCUMENT)


if __name__ == "__main__":
    main()
