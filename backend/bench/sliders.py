"""How soon sliders act while many replies are written: clients of a running server, each moving its slider.

    python -m bench.sliders [--url 127.0.0.1:8000] [--runs 64] [--tokens 256] [--every 16] [--write]

Every run is written to its end, and each time that its client has so many tokens more it moves the slider.
Told is what the client sees: how many positions there are between the first one that nobody had computed for
it when it sent the change, which is that of its newest token, and the first row that was computed with the
change; and the time from sending to the proof (`applied`). A position of the first kind is 0 where the change
is in force in the very next forward pass that the client has not seen the end of. Clients share
`--processes` processes.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

from steersight.address import DEFAULT_ADDRESS
from steersight.client import Client, SteersightError, connect

from .proving import REPOSITORY, machine, quantile, report, table
from .serve import THREE, question

DOCUMENT = REPOSITORY / "docs" / "performance.md"
STRENGTHS = (0.02, 0.01)


async def one(client: Client, index: int, asked: argparse.Namespace) -> list[tuple[int, float]]:
    """A run to its end; for each change its positions and seconds."""
    vector = next(iter(client.vectors))
    run = await client.start(
        [{"role": "user", "content": question(index)}],
        sampling={"temperature": 0, "max_tokens": asked.tokens, "stop": []},
        metrics=THREE, prompt_rows=False,
    )  # fmt: skip
    proofs: list[asyncio.Task[tuple[int, float] | None]] = []
    # Not all in the same step.
    due = 1 + index % asked.every

    async def change(strength: float) -> tuple[int, float] | None:
        newest, began = len(run.prompt.ids) + len(run.ids) - 1, time.perf_counter()
        try:
            position = await run.applied(await run.steer({vector: strength}))
        except SteersightError:
            return None  # it came behind the last pass
        return position - newest, time.perf_counter() - began

    async for _ in run.texts():
        if len(run.ids) >= due:
            due = len(run.ids) + asked.every
            proofs.append(asyncio.create_task(change(STRENGTHS[len(proofs) % 2])))
    return [change for change in await asyncio.gather(*proofs) if change is not None]


def clients(numbers: list[int], asked: argparse.Namespace, ready: Any, found: Any) -> None:
    """The clients of one process, all beginning together with everybody else's."""

    async def all_of_them() -> list[tuple[int, float]]:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(connect(asked.url)) for _ in numbers]
            for client in opened:
                await client.ready()
            await asyncio.to_thread(ready.wait)
            each = await asyncio.gather(*(one(c, n, asked) for c, n in zip(opened, numbers, strict=True)))
        return [change for changes in each for change in changes]

    found.put(asyncio.run(all_of_them()))


def measure(asked: argparse.Namespace) -> str:
    """Run it; gives the table."""
    context = multiprocessing.get_context("spawn")
    shares = [list(range(asked.runs))[k :: asked.processes] for k in range(asked.processes)]
    shares = [share for share in shares if share]
    ready, found = context.Barrier(len(shares)), context.Queue()
    processes = [
        context.Process(target=clients, args=(share, asked, ready, found), daemon=True) for share in shares
    ]
    for process in processes:
        process.start()
    changes: list[tuple[int, float]] = []
    for _ in processes:
        changes += found.get(timeout=600)
    if not changes:
        sys.exit("No change was in force before its reply ended. Give the replies more tokens.")
    positions, ways = ([change[k] for change in changes] for k in (0, 1))
    rows = [
        ["changes", len(changes)],
        ["positions to the first row with it, p50 / p99 / most",
         f"{quantile(positions, 0.5):.0f} / {quantile(positions, 0.99):.0f} / {max(positions)}"],
        ["to the proof, p50 / p99",
         f"{quantile(ways, 0.5) * 1e3:.0f} / {quantile(ways, 0.99) * 1e3:.0f} ms"],
    ]  # fmt: skip
    head = (
        f"{asked.runs} runs of {asked.tokens} tokens with three metrics, each moving its slider at every "
        f"{asked.every}th token, on {machine()}:"
    )
    return f"{head}\n\n{table(['sliders', 'measured'], rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default=DEFAULT_ADDRESS)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    asked = parser.parse_args()
    report("sliders.py", measure(asked), asked.write, DOCUMENT)


if __name__ == "__main__":
    main()
