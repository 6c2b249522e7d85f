"""Five hundred runs over a line that is cut all the time: nothing lost, doubled or changed.

    python -m bench.chaos [--runs 500] [--at-once 12] [--seed 1] [--url ws://HOST:PORT/ws] [--write]

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
import contextlib
import itertools
import random
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from steersight.protocol import messages as m

from .bare import Line, dial, question
from .proving import BrokenPromiseError, Target, machine, promise, report, serving, table
from .proxy import BadLine
from .watching import RunView, matches

GRACE_SECONDS = 30
SILENT_SECONDS = 8.0
"""A client that hears nothing for so long, not even the pong it has asked for, dials again."""
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
LOST = (ConnectionClosed, OSError, InvalidHandshake, InvalidMessage, TimeoutError, EOFError)


@dataclass(eq=False)
class Job:
    """One run that is to be had, whatever happens."""

    number: int
    text: str
    tokens: int
    strengths: dict[str, float]
    steers: list[dict[str, float]]
    """New strengths on the way; empty for most."""
    again: bool
    """Ask for some rows once more when all is here, though none is missing."""
    views: list[RunView] = field(default_factory=list)
    """The owner's, and that of a second reader where there is one."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0
    """The newest revision asked for."""
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def wanted(self) -> int:
        """How many readers it has to satisfy."""
        return 2 if self.steers else 1


class Client:
    """One person: a connection that is lost and made again, and the runs it looks at."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.dice = random.Random(f"{world.seed} client {number}")  # noqa: S311
        self.names = itertools.count(1)
        self.number = number
        self.waiting: list[Job] = []
        """To be started."""
        self.asked: dict[str, Job] = {}
        """By the name in `start`; nothing has come of them yet."""
        self.watched: dict[str, tuple[Job, RunView]] = {}
        self.line: Line | None = None

    async def live(self) -> None:
        """Connect again and again until cancelled."""
        while True:
            with contextlib.suppress(*LOST):
                async with asyncio.timeout(SILENT_SECONDS * 2) as dialling:
                    async with dial(self.world.address) as line:
                        dialling.reschedule(None)
                        self.world.seen["connections"] += 1
                        promise(line.welcome.epoch == self.world.epoch, "The server is another.")
                        self.line = line
                        await self._talk(line)
            self.line = None
            # What was asked for and not answered may or may not have begun; it is asked for under a new name,
            # and a run that nobody knows of ends after the grace time.
            self.waiting += self.asked.values()
            self.asked.clear()
            await asyncio.sleep(self.dice.choice((0.0, 0.05, 0.3, 1.0)))

    async def _talk(self, line: Line) -> None:
        for run, (_, view) in list(self.watched.items()):
            await line.send(m.Resume(run=run, epoch=self.world.epoch, after=view.after))
            self.world.seen["resumes"] += 1
        await self.push()
        loop = asyncio.get_running_loop()
        gone_at = loop.time() + self.dice.expovariate(1 / 5.0)
        heard = loop.time()
        while True:
            now = loop.time()
            if now > gone_at:
                self.world.seen["vanished by themselves"] += 1
                if self.dice.random() < 0.7:
                    line.vanish()
                return
            try:
                async with asyncio.timeout(min(SILENT_SECONDS / 2, gone_at - now + 0.01)):
                    frame = await line.receive()
            except TimeoutError:
                if loop.time() - heard > SILENT_SECONDS:
                    self.world.seen["gave up a silent line"] += 1
                    return
                await line.send(m.Ping(t=0.0))
                continue
            heard = loop.time()
            await self._take(line, frame)

    async def push(self) -> None:
        """Start what waits, where there is a line."""
        if self.line is None:
            return
        while self.waiting:
            job = self.waiting.pop()
            name = f"c{self.number}-{next(self.names)}"
            self.asked[name] = job
            await self.line.send(question(name, job.text, job.tokens, strengths=job.strengths))

    async def _take(self, line: Line, frame: Any) -> None:
        match frame:
            case m.Started() if frame.id in self.asked:
                job = self.asked.pop(frame.id)
                job.views.append(view := RunView(frame.run))
                self.watched[frame.run] = (job, view)
                self.world.began(job, frame.run, self)
            case m.Error():
                await self._refused(frame)
                return
        known = self.watched.get(getattr(frame, "run", ""))
        if known is None:
            return
        job, view = known
        view.take(frame)
        if isinstance(frame, m.Resumed):
            self.world.seen["resumed"] += 1
            # A change that went down with the line is sent once more, as the same state with the same number.
            if frame.rev < job.sent and self is self.world.owner(job):
                await line.send(m.Steer(run=view.run, rev=job.sent, strengths=job.steers[job.sent - 1]))
        if isinstance(frame, m.Tokens) and self is self.world.owner(job):
            await self._steer(line, job, view)
        if view.finished is not None:
            await self._end(line, job, view, frame)

    async def _steer(self, line: Line, job: Job, view: RunView) -> None:
        share = (job.sent + 1) / (len(job.steers) + 1)
        if job.sent < len(job.steers) and len(view.ids) >= share * job.tokens * 0.8:
            job.sent += 1
            await line.send(m.Steer(run=view.run, rev=job.sent, strengths=job.steers[job.sent - 1]))

    async def _end(self, line: Line, job: Job, view: RunView, frame: Any) -> None:
        """Ask for what is missing; a view that is whole is let go."""
        if isinstance(frame, m.Finished | m.Resumed) and (missing := view.missing()):
            for start, count in missing:
                await line.send(m.AskRows(run=view.run, start=start, count=count))
                self.world.seen["rows asked for"] += count
        elif view.whole and job.again and isinstance(frame, m.Finished):
            job.again = False
            start = self.dice.randrange(max(1, len(view.prompt) + len(view.ids) - 1))
            await line.send(m.AskRows(run=view.run, start=start, count=self.dice.randrange(1, 40)))
            self.world.seen["rows asked for once more"] += 1
        elif view.whole:
            self.watched.pop(view.run, None)
            if sum(known.finished is not None and known.whole for known in job.views) == job.wanted:
                job.over.set()

    async def _refused(self, error: m.Error) -> None:
        self.world.seen[f"refused: {error.code}"] += 1
        if error.code == m.ErrorCode.STALE_REVISION:  # it had arrived after all
            return
        if error.code in (m.ErrorCode.BUSY, m.ErrorCode.RATE_LIMITED) and error.id in self.asked:
            self.waiting.append(self.asked.pop(error.id))
            asyncio.get_running_loop().call_later(0.5, self.world.nudge, self)
            return
        raise BrokenPromiseError(f"The server refused what was right: {error.code}, {error.message}")


class World:
    """All clients, and what is counted."""

    def __init__(self, address: str, epoch: str, seed: int, clients: int) -> None:
        self.address = address
        self.epoch = epoch
        self.seed = seed
        self.seen: Counter[str] = Counter()
        self.clients = [Client(self, number) for number in range(clients)]
        self._owners: dict[int, Client] = {}
        self._nudges: set[asyncio.Task[None]] = set()

    def nudge(self, client: Client) -> None:
        """Let a client start what waits; if its line goes meanwhile, it does so on the next one."""

        async def push() -> None:
            with contextlib.suppress(*LOST):
                await client.push()

        task = asyncio.create_task(push())
        self._nudges.add(task)
        task.add_done_callback(self._nudges.discard)

    def give(self, job: Job, client: Client) -> None:
        """Let a client have a job."""
        client.waiting.append(job)
        self.nudge(client)

    def owner(self, job: Job) -> Client | None:
        """Who started it."""
        return self._owners.get(job.number)

    def began(self, job: Job, run: str, owner: Client) -> None:
        """A run has its name; a steered one gets a second reader, on another connection."""
        self._owners[job.number] = owner
        if job.wanted == 2:
            other = self.clients[(owner.number + 1) % len(self.clients)]
            view = RunView(run)
            job.views.append(view)
            other.watched[run] = (job, view)
            self._watch(other, run)

    def _watch(self, client: Client, run: str) -> None:
        async def resume() -> None:
            if client.line is not None:
                with contextlib.suppress(*LOST):
                    await client.line.send(m.Resume(run=run, epoch=self.epoch, after=0))

        task = asyncio.create_task(resume())
        self._nudges.add(task)
        task.add_done_callback(self._nudges.discard)


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
        ["rows named by gaps and asked for", world.seen["rows asked for"], "all came"],
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
