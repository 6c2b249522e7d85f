"""What the CPU engine gains by the cores it computes on, and by tcmalloc and Intel's OpenMP.

    python -m bench.cores [--rounds 2] [--tokens 64]          from the folder `backend`; `make bench-cores`

Each way is a server of its own, started anew; the ways take turns, forwards and then backwards, so that a
machine that grows warm or busy meets all of them. Needs a machine that does nothing else. Prints a table in
Markdown: medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator

import httpx

from steersight.client import connect
from steersight.engine import cores

from .proving import MODEL, free_port
from .serving import batch

RUNS = (1, 4, 8)
LONG = [{"role": "user", "content": "Sum this up in a word. " + "The river bends to the left. " * 125}]
"""Some 900 tokens."""
WAYS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "vLLM's own choice, nothing loaded first": ("auto", ()),
    "vLLM's own choice, both": ("auto", ("tcmalloc", "OpenMP")),
    "ours, nothing loaded first": (None, ()),
    "ours, tcmalloc": (None, ("tcmalloc",)),
    "ours, OpenMP": (None, ("OpenMP",)),
    "ours, both (the default)": (None, ("tcmalloc", "OpenMP")),
}
"""Of each: what VLLM_CPU_OMP_THREADS_BIND says, None for our default; which libraries may be loaded first."""


@contextlib.asynccontextmanager
async def serving(bind: str | None, first: tuple[str, ...]) -> AsyncIterator[str]:
    """A server started one of these ways, once it is ready; gives host and port."""
    port = free_port()
    # Which libraries are loaded is no setting, so the server is started with fewer of them to find.
    code = (
        "import sys; from steersight.engine import cores; from steersight.cli import main;"
        f"[cores.LIBRARIES.pop(name) for name in list(cores.LIBRARIES) if name not in {first!r}];"
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in (cores.BIND, cores.RESERVED)
    }
    if bind is not None:
        environment[cores.BIND] = bind
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, "serve", "--port", str(port), "--model", MODEL,
            stdout=log, stderr=log, env=environment,
        )  # fmt: skip
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                ready = False
                while not ready:
                    await asyncio.sleep(0.5)
                    if process.returncode is not None:
                        log.seek(0)
                        raise SystemExit(log.read().decode(errors="replace"))
                    with contextlib.suppress(httpx.TransportError):
                        ready = (await http.get("/readyz", timeout=10)).status_code == 200
            yield f"127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def first_token(url: str) -> float:
    """Seconds to the first token of a long prompt."""
    async with connect(url) as client:
        await client.ready()
        began = time.perf_counter()
        run = await client.start(
            LONG, sampling={"temperature": 0, "max_tokens": 4}, metrics=[], prompt_rows=False
        )
        async for _ in run.texts():
            break
        seconds = time.perf_counter() - began
        await run.wait()
    return seconds


async def measure(way: str, tokens: int) -> list[float]:
    """Tokens per second at each number of runs, and the seconds of `first_token`."""
    async with serving(*WAYS[way]) as address:
        url = f"ws://{address}/ws"
        await batch(url, 1, 8, rows=True)  # warm
        speeds = [(await batch(url, runs, tokens, rows=True))[0] for runs in RUNS]
        return [*speeds, statistics.median([await first_token(url) for _ in range(3)])]


async def main() -> None:
    """Measure every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    found = {name: path for name, path in cores.libraries().items() if path is None}
    if found:
        print(f"Not on this machine, so that rows with it say nothing: {', '.join(found)}.\n")
    taken: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for turn in range(arguments.rounds):
        for way in list(WAYS)[:: 1 if turn % 2 == 0 else -1]:
            taken[way].append(await measure(way, arguments.tokens))
            print(f"{way}: {' '.join(f'{value:.2f}' for value in taken[way][-1])}", file=sys.stderr)
    processors = cores.usable()
    chosen = cores.threads(processors, cores.quota(), 1) or "vLLM's own choice"
    print(f"{len({processor.core for processor in processors})} cores; ours: {chosen}\n")
    print(f"| way | {' | '.join(f'tokens/s, {runs} runs' for runs in RUNS)} | first token of 900, s |")
    print(f"| --- |{' --- |' * (len(RUNS) + 1)}")
    for way, rounds in taken.items():
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        print(f"| {way} | {' | '.join(f'{value:.1f}' for value in medians[:-1])} | {medians[-1]:.2f} |")


if __name__ == "__main__":
    asyncio.run(main())
