"""Tokens per second, time to the first token and steering latency of a running server.

    python backend/bench/serving.py [--url 127.0.0.1:8000] [--tokens 64] [--rounds 3]

Every figure comes over the wire, as a person's page would see it. For each number of simultaneous runs the
two variants (rows of all metrics sent, no rows sent) take turns; the table, in Markdown, gives medians.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from steersight.address import DEFAULT_ADDRESS
from steersight.client import Client, connect

QUESTION = [{"role": "user", "content": "Write a long letter about the history of Paris."}]


async def batch(url: str, runs: int, tokens: int, rows: bool) -> tuple[float, float]:
    """Tokens per second of all runs together, and the median seconds to the first token."""
    first: list[float] = []

    async def one(client: Client) -> int:
        began = time.perf_counter()
        run = await client.start(
            QUESTION,
            sampling={"temperature": 0, "max_tokens": tokens},
            metrics=None if rows else [],
            prompt_rows=False,
        )
        async for _ in run.texts():
            first.append(time.perf_counter() - began)
            break
        await run.wait()
        return len(run.ids)

    async with connect(url) as client:
        await client.ready()
        began = time.perf_counter()
        counts = await asyncio.gather(*(one(client) for _ in range(runs)))
        seconds = time.perf_counter() - began
    return sum(counts) / seconds, statistics.median(first)


async def steering(url: str, changes: int) -> tuple[float, float]:
    """Median milliseconds from a slider's message to `applied`, and milliseconds of a token meanwhile."""
    async with connect(url) as client:
        await client.ready()
        vector = next(iter(client.vectors))
        run = await client.start(
            QUESTION, sampling={"temperature": 0, "max_tokens": 16 * changes}, metrics=[], prompt_rows=False
        )
        async for _ in run.texts():
            break
        waits, began, before = [], time.perf_counter(), len(run.ids)
        for change in range(changes):
            asked = time.perf_counter()
            await run.applied(await run.steer({vector: 0.01 * (change % 5 + 1)}))
            waits.append((time.perf_counter() - asked) * 1000)
        step = (time.perf_counter() - began) * 1000 / max(1, len(run.ids) - before)
        await run.stop()
        await run.wait()
    return statistics.median(waits), step


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default=DEFAULT_ADDRESS)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 4, 8, 16])
    asked = parser.parse_args()

    await batch(asked.url, 1, 8, rows=True)  # the first reply of a fresh engine is slower than all others
    print("| runs at once | tokens/s, no rows | tokens/s, all rows | ratio | first token, all rows |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for runs in asked.runs:
        without, having, first = [], [], []
        for _ in range(asked.rounds):
            without.append((await batch(asked.url, runs, asked.tokens, rows=False))[0])
            rate, seconds = await batch(asked.url, runs, asked.tokens, rows=True)
            having.append(rate)
            first.append(seconds)
        plain, rowed = statistics.median(without), statistics.median(having)
        wait = statistics.median(first)
        print(f"| {runs} | {plain:.1f} | {rowed:.1f} | {rowed / plain:.2f} | {wait:.2f} s |", flush=True)
    wait, step = await steering(asked.url, 20)
    print(
        f"\nSlider to `applied`: {wait:.0f} ms, while one token takes {step:.0f} ms (median of 20 changes)."
    )


if __name__ == "__main__":
    asyncio.run(main())
