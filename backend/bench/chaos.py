"""Five hundred runs over a line that is cut all the time: nothing lost, doubled or changed.

    python -m bench.chaos [--runs 500] [--at-once 12] [--seed 1] [--url HOST:PORT] [--write]

Between the clients and the server stands `bench.proxy`, which resets, closes, silences, delays and throttles
by dice; the clients vanish by themselves besides. They come back and resume. Every frame is checked
(`bench.watching`), and at the end every run:

- each token came exactly once, or the same once more; rows are complete, or a `gap` names exactly what is
  missing and `rows` brings it;
- the reply is the one that the same question has when nothing disturbs it, token by token;
- of a run that is steered on its way, two readers with connections of their own have seen the same tokens,
  rows and revisions, which never go back.

Afterwards, when the grace time is over, the server has no run, the engine no request, and the server's
process weighs what it did after the first runs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections import deque
from pathlib import Path

from steersight.protocol import messages as m

from .bare import dial, question
from .proving import Target, machine, promise, report, serving, table
from .proxy import BadLine
from .wanderers import Job, World
from .watching import RunView, matches

GRACE_SECONDS = 30
RUN_SECONDS = 180.0
"""Nothing takes so long unless it hangs."""
MOST_GROWTH_MIB = 32.0
QUESTIONS = (
    "Tell me about Paris.",
    "Write a short poem about the sea.",
    "What is the capital of France?",
    "Explain to a child why the sky is blue.",
    "List five animals that live in the forest.",
    "Who wrote Hamlet, and what is it about?",
)
LENGTHS = (16, 24, 32, 48, 64)


async def undisturbed(target: Target, strengths: list[dict[str, float]]) -> dict[tuple[str, str], list[int]]:
    """The reply to every question at every strength, asked for over a good line, one after the other."""
    found: dict[tuple[str, str], list[int]] = {}
    async with dial(target.address) as line:
        for number, (text, chosen) in enumerate(itertools.product(QUESTIONS, strengths)):
            await line.send(question(f"u{number}", text, max(LENGTHS), strengths=chosen))
            view: RunView | None = None
            while view is None or not view.whole:
                frame = await line.receive()
                promise(not isinstance(frame, m.Error), f"A question was refused: {frame}")
                if isinstance(frame, m.Started):
                    view = RunView(frame.run)
                if view is not None and getattr(frame, "run", None) == view.run:
                    view.take(frame)
            view.complete()
            found[text, str(chosen)] = view.ids
    return found


def jobs(runs: int, seed: int, strengths: list[dict[str, float]]) -> list[Job]:
    """What is to be asked: one run of four is steered on its way."""
    dice = random.Random(f"{seed} jobs")  # noqa: S311
    out = []
    for number in range(runs):
        steers = [dice.choice(strengths) for _ in range(dice.randrange(1, 4))] if dice.random() < 0.25 else []
        out.append(
            Job(
                number, dice.choice(QUESTIONS), dice.choice(LENGTHS), dice.choice(strengths), steers,
                again=dice.random() < 0.3,
            )
        )  # fmt: skip
    return out


def judge(job: Job, whole: dict[tuple[str, str], list[int]]) -> None:
    """Hold a run that is over against everything that was promised."""
    for view in job.views:
        view.complete()
        finished = view.finished
        promise(
            finished is not None and finished.reason in ("stop", "length"),
            f"Run {view.run} ended with {finished}",
        )
    first = job.views[0]
    if job.steers:
        first.agrees_with(job.views[1])
        # A revision that was replaced before a token was computed with it leaves no trace.
        revs = {rev for rev, _ in first.rows.values()}
        promise(revs <= set(range(job.sent + 1)), f"Run {first.run} has revisions that nobody asked for.")
        promise(set(first.applied) == revs - {0}, f"Run {first.run} did not say what was applied.")
    else:
        matches(first, whole[job.text, str(job.strengths)], job.tokens)


async def storm(target: Target, asked: argparse.Namespace) -> tuple[World, BadLine, list[Job]]:
    """Everything that happens between a fresh server and the last reply."""
    async with dial(target.address) as line:
        epoch = line.welcome.epoch
        vectors = line.welcome.vectors
        promise(line.welcome.engine.state == "ready", "The engine is not ready.")
    strengths: list[dict[str, float]] = [{}, *({v.id: v.suggested} for v in vectors[:2])]
    whole = await undisturbed(target, strengths)
    await target.weigh("before")
    everything = jobs(asked.runs, asked.seed, strengths)
    async with BadLine(target.address, asked.seed) as bad:
        world = World(bad.address, epoch, asked.seed, asked.clients)
        living = [asyncio.create_task(client.live()) for client in world.clients]
        try:
            await through(everything, world, living, target, whole, asked.at_once)
        finally:
            for task in living:
                task.cancel()
            await asyncio.gather(*living, return_exceptions=True)
    return world, bad, everything


async def through(
    everything: list[Job],
    world: World,
    living: list[asyncio.Task[None]],
    target: Target,
    whole: dict[tuple[str, str], list[int]],
    at_once: int,
) -> None:
    """Keep so many jobs going until all are over; judge each as it ends."""
    todo = deque(everything)
    going: dict[asyncio.Task[bool], Job] = {}
    over = 0
    marks = [len(everything) * part // 5 for part in range(1, 6)]
    while todo or going:
        while todo and len(going) < at_once:
            job = todo.popleft()
            job.began = time.monotonic()
            world.give(job, world.clients[job.number % len(world.clients)])
            going[asyncio.create_task(job.over.wait())] = job
        ended, _ = await asyncio.wait([*going, *living], timeout=5, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            if task not in going:
                task.result()  # a client broke off: it says why
                raise AssertionError("a client ended")
            job = going.pop(task)  # type: ignore[arg-type]
            job.seconds = time.monotonic() - job.began
            judge(job, whole)
            over += 1
            if over in marks:
                weight = await target.weigh(f"after {over} runs")
                print(f"{over} runs are over, {weight:.0f} MiB", file=sys.stderr, flush=True)
        for job in going.values():
            where = [(view.run, len(view.ids), view.after, view.finished is not None) for view in job.views]
            promise(
                time.monotonic() - job.began < RUN_SECONDS,
                f"Run {job.number} ({job.tokens} tokens, {len(job.steers)} changes) hangs: {where}",
            )


async def prove(asked: argparse.Namespace) -> str:
    """The whole proof; the report in Markdown."""
    settings = {"grace_seconds": GRACE_SECONDS, "starts_per_minute": 1_000_000}
    async with serving(asked.url, settings) as target:
        began = time.monotonic()
        world, bad, everything = await storm(target, asked)
        seconds = time.monotonic() - began
        settled = await target.settled(GRACE_SECONDS + 40)
        await asyncio.sleep(GRACE_SECONDS + 2)  # finished runs are kept as long
        last = await target.weigh("when the grace time was over")
        early = target.memory[min(1, len(target.memory) - 1)][1]
        growth = last - early
        promise(target.tracebacks() == 0, f"The server wrote a traceback:\n{target.said()[-4000:]}")
    print(f"seen: {dict(world.seen)}", file=sys.stderr)
    views = [view for job in everything for view in job.views]
    steered = sum(bool(job.steers) for job in everything)
    rows: list[list[object]] = [
        [f"runs, {steered} of them steered on their way", len(everything), "all whole, all as undisturbed"],
        ["tokens", sum(len(view.ids) for view in views), "each exactly once"],
        ["rows", sum(len(view.rows) for view in views), f"{sum(len(v.lost) for v in views)} lost for good"],
        ["connections", world.seen["connections"], ", ".join(f"{n} {w}" for w, n in bad.endings.items())],
        ["clients that vanished by themselves", world.seen["vanished by themselves"], ""],
        ["runs resumed", world.seen["resumed"], ""],
        ["tokens and rows that came again", sum(view.repeated for view in views), "all the same"],
        [
            "rows named by gaps and asked for",
            world.seen["rows asked for"],
            "all came" if world.seen["rows asked for"] else "no client lagged so far behind",
        ],
        [
            "rows asked for though they had come",
            world.seen["rows asked for once more"],
            "requests, all the same",
        ],
        ["requests in the engine afterwards", 0, f"{settled:.0f} s after the last reply"],
        [
            "memory of the server, MiB",
            f"{last - early:+.0f}",
            ", ".join(f"{weight:.0f} {when}" for when, weight in target.memory),
        ],
    ]
    text = f"Seed {asked.seed}, {asked.at_once} runs at once, {seconds / 60:.1f} minutes on {machine()}:\n\n"
    text += table(["what", "number", ""], rows)
    promise(growth < MOST_GROWTH_MIB, f"The server has grown by {growth:.0f} MiB: {target.memory}")
    return text


def main() -> int:
    """Prove it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=12)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="a running server, instead of one of its own")
    parser.add_argument("--write", action="store_true", help="write the table into docs/reliability.md")
    asked = parser.parse_args()
    report(Path(__file__).name, asyncio.run(prove(asked)), asked.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
