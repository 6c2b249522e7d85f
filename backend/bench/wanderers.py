"""The clients of `bench.chaos`: people whose line is lost all the time, and who come back for what is theirs.

A `Job` is one run that has to be had whatever happens. A `Client` has one connection at a time and resumes on
the next one whatever it watches. The `World` is all of them, and what is counted. Every frame goes through a
`RunView`, which raises at the first broken promise; `Client.live` then ends with that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from steersight.protocol import messages as m

from .bare import Line, dial, question
from .proving import BrokenPromiseError, promise
from .watching import RunView

SILENT_SECONDS = 8.0
"""A client that hears nothing for so long, not even the pong it has asked for, dials again."""
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
