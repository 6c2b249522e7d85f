"""Two hundred connections, most of them of no use and some of them hostile: what ten people feel of it.

    python -m bench.crowd [--seconds 60] [--url HOST:PORT] [--write]

Ten healthy clients ask, read and ask again, in three parts of one run, and the pause before every token but a
reply's first is taken where it arrives, at the client:

- alone: nobody else is there;
- company: forty more runs are computed for clients that read everything. This is what the engine's work for
  so many runs does to everybody, and no reader can help it;
- crowd: the same forty runs belong to twenty clients that never read again once theirs has begun (half of
  them ask for all its rows, over and over) and twenty that vanish with RST; besides, a hundred connections
  watch the healthy clients' runs and fifty do nothing.

The promise: the crowd costs the healthy clients nothing beyond the engine's work. 99 of 100 of their tokens
come no later than 1.5 times the 99th percentile that they have in company. The crowd lives in a process of
its own (`bench.bystanders`), so that its work is not the measuring clients' own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steersight.protocol import messages as m

from .bare import Line, dial, question
from .bystanders import DEAF, HEALTHY, LONG_TOKENS, TEXT, VANISHING
from .proving import MODEL, Target, machine, promise, quantile, report, serving, table

TOKENS = 64
GRACE_SECONDS = 30
MOST_LATER = 1.5
MOST_GROWTH_MIB = 96.0
CUT_SECONDS = 60
"""A client that does not read is cut off within so many seconds."""

Tell = Callable[[int, str], None]


@dataclass
class Felt:
    """What the healthy clients felt in one part."""

    pauses: list[float] = field(default_factory=list)
    """Seconds before a token, its reply's first left out."""
    firsts: list[float] = field(default_factory=list)
    """Seconds from `start` to a reply's first token."""
    runs: int = 0

    def row(self, name: str) -> list[object]:
        """One line of the table, in milliseconds."""
        pauses = [f"{quantile(self.pauses, share) * 1e3:.0f}" for share in (0.5, 0.99, 1.0)]
        return [name, len(self.pauses), *pauses, f"{quantile(self.firsts, 0.5) * 1e3:.0f}"]


async def healthy(target: Target, seconds: float, tell: Tell) -> Felt:
    """Ten clients for so long; `tell(client, run)` whenever one has a new run."""
    felt = Felt()
    ends = time.monotonic() + seconds

    async def one(number: int) -> None:
        async with dial(target.address) as line:
            count = 0
            while time.monotonic() < ends:
                await reply(line, f"h{number}-{count}", number)
                count += 1

    async def reply(line: Line, name: str, number: int) -> None:
        asked = time.perf_counter()
        await line.send(question(name, TEXT, TOKENS))
        run, last = "", None
        while True:
            frame = await line.receive()
            promise(not isinstance(frame, m.Error), f"A healthy client was refused: {frame}")
            if isinstance(frame, m.Started):
                run = frame.run
                tell(number, run)
            elif isinstance(frame, m.Tokens) and frame.run == run:
                now = time.perf_counter()
                if last is None:
                    felt.firsts.append(now - asked)
                else:
                    felt.pauses.append(now - last)
                last = now
            elif isinstance(frame, m.Finished) and frame.run == run:
                promise(frame.reason in ("stop", "length"), f"A healthy client's run ended: {frame.reason}")
                felt.runs += 1
                return

    await asyncio.gather(*(one(number) for number in range(HEALTHY)))
    return felt


@contextlib.asynccontextmanager
async def beside(target: Target, kind: str, found: dict[str, Any]) -> AsyncIterator[Tell]:
    """Let the others be there during the block; yields how to tell them of a run."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bystanders", kind, target.address,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None  # noqa: S101
    into = process.stdin

    def tell(client: int, run: str) -> None:
        into.write(json.dumps([client, run]).encode() + b"\n")

    try:
        yield tell
    finally:
        into.close()  # the end of its input is what it waits for
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        found.update(json.loads(said or "{}") or {})


async def prove(asked: argparse.Namespace) -> str:
    """Three parts on one server; the report in Markdown."""
    settings = {"grace_seconds": GRACE_SECONDS, "starts_per_minute": 1_000_000}
    model = asked.model or MODEL
    async with serving(asked.url, settings, model=model) as target:
        await healthy(target, 5, lambda *_: None)  # the first replies of a fresh engine are slower
        await target.weigh("before")
        alone = await healthy(target, asked.seconds, lambda *_: None)
        print(alone.row("alone"), file=sys.stderr, flush=True)
        async with beside(target, "company", {}) as tell:
            in_company = await healthy(target, asked.seconds, tell)
        print(in_company.row("company"), file=sys.stderr, flush=True)
        await target.settled(LONG_TOKENS + GRACE_SECONDS)
        await target.weigh("after company")
        found: dict[str, Any] = {}
        before = await target.gauges()
        async with beside(target, "crowd", found) as tell:
            in_crowd = await healthy(target, asked.seconds, tell)
            await target.weigh("with the crowd there")
        print(in_crowd.row("crowd"), file=sys.stderr, flush=True)
        print(json.dumps(found), file=sys.stderr, flush=True)
        settled = await target.settled(LONG_TOKENS + GRACE_SECONDS)
        await asyncio.sleep(GRACE_SECONDS + 2)
        last = await target.weigh("when the grace time was over")
        closes = closed_since(before, await target.gauges())
        promise(target.tracebacks() == 0, f"The server wrote a traceback:\n{target.said()[-4000:]}")
    usual = quantile(in_company.pauses, 0.99)
    later = [pause for pause in in_crowd.pauses if pause > MOST_LATER * usual]
    ratios = {
        f"{share:.0%}" if share < 1 else "longest": quantile(in_crowd.pauses, share)
        / quantile(in_company.pauses, share)
        for share in (0.5, 0.99, 1.0)
    }
    bystanders_cut = sum(found["seen"].get(who, 0) for who in ("watchers cut", "idle ones cut"))
    # The end of a line stands behind what was not read, so only a reset can be seen when it comes.
    cut = [one for one in found["deaf"] if one["after"] is not None or one["code"] is not None]
    resets = [one["after"] for one in cut if one["after"] is not None]
    codes = Counter(str(one["code"]) for one in cut if one["after"] is None)
    text = f"{asked.seconds:.0f} seconds each, {machine()}; milliseconds before a token, at the client:\n\n"
    text += table(
        ["ten clients", "tokens", "median", "99 %", "longest", "first token, median"],
        [
            alone.row("alone"),
            in_company.row("in company of 40 more runs"),
            in_crowd.row("in the crowd of 190, with as many runs"),
        ],
    )
    text += "\n\n" + table(
        ["what", "seen"],
        [
            ["crowd against company", ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())],
            [
                f"tokens later than {MOST_LATER} × the 99 % of company",
                f"{len(later)} of {len(in_crowd.pauses)}",
            ],
            [
                f"{DEAF} that never read",
                f"{len(resets)} were reset {spread(resets)} after they had stopped, and "
                + ", ".join(f"{count} closed with {code}" for code, count in codes.items()),
            ],
            ["close codes that the server counted", closes],
            ["watchers and idle ones cut", str(bystanders_cut)],
            ["requests in the engine afterwards", f"0, {settled:.0f} s after the crowd had gone"],
            ["memory of the server", ", ".join(f"{weight:.0f} MiB {when}" for when, weight in target.memory)],
        ],
    )  # fmt: skip
    print(text, file=sys.stderr)
    promise(not found["errors"], f"The crowd's own clients failed: {found['errors'][:3]}")
    promise(found["seen"].get("vanished") == VANISHING, "Not all vanished that were to.")
    promise(
        len(cut) == DEAF or asked.seconds < CUT_SECONDS,
        f"{DEAF - len(cut)} clients that never read were still there.",
    )
    promise(
        quantile(in_crowd.pauses, 0.99) <= MOST_LATER * usual,
        f"{len(later)} of {len(in_crowd.pauses)} tokens came later than {MOST_LATER} times the usual.",
    )
    settled_weight = target.memory[1][1]
    promise(last - settled_weight < MOST_GROWTH_MIB, f"The server has grown: {target.memory}")
    return text


def closed_since(before: dict[str, float], after: dict[str, float]) -> str:
    """Connections that ended in between, by close code, as /metrics has them."""
    name = "steersight_connections_closed_total"
    counts = {key: after[key] - before.get(key, 0) for key in after if key.startswith(name)}
    return ", ".join(
        f"{key.partition('code=')[2].strip('}')[1:-1]} {count:.0f}" for key, count in counts.items() if count
    )


def spread(seconds: list[float]) -> str:
    """Shortest and longest."""
    return f"{min(seconds):.0f} to {max(seconds):.0f} s" if seconds else "never"


def main() -> int:
    """Prove it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model", help="a checkpoint folder; the bundled one where none is given")
    parser.add_argument("--url", help="a running server, instead of one of its own")
    parser.add_argument("--write", action="store_true", help="write the table into docs/reliability.md")
    asked = parser.parse_args()
    report(Path(__file__).name, asyncio.run(prove(asked)), asked.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
