"""Schedules of runs that share prefixes, are steered, stopped and written on; and the check that each was
what it would have been alone."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from steersight.engine.reply import Entry
from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.engine.service import EngineService
from steersight.engine.step import NO_TOKEN
from steersight.text.thoughts import Marks, Opening
from steersight.vectors.action import Action, decide_all

from .families import LAYERS
from .greedy import greedy
from .parting import Passes, passes

METRICS = ["residual_norm", "update_norm", "cosine_below"]
MOST = 250
"""Tokens of prompt and reply."""

Sliders = dict[str, tuple[float, dict[str, Any]]]
"""Strength and settings of each vector that is not at 0."""


@dataclass(frozen=True)
class Asked:
    """One run of a schedule."""

    wave: int
    """Runs of one wave are live together; the next wave begins when they have ended."""
    text: int
    """Which of three beginnings, of which prompts share more or less."""
    length: int
    after: int | None
    """The run of an earlier wave whose conversation it goes on with."""
    tokens: int
    sliders: Sliders
    changes: list[tuple[int, Sliders]]
    """(tokens of the reply, and what the sliders say from then on)"""
    stop_at: int | None
    """It is stopped when its reply has so many tokens."""
    read_most: int | None = None
    """So many tokens may come from the cache."""
    marks: Marks | None = None
    """What parts its reply into thought and answer; None does not."""
    opened: bool = False
    """Whether the thought has begun with the prompt."""


@dataclass
class Reply:
    """One run's tokens and rows, whenever they came."""

    ids: list[int] = field(default_factory=list)
    revs: dict[int, int] = field(default_factory=dict)
    rows: dict[int, np.ndarray] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        assert entry.step is not None
        columns = [entry.step.metrics.index(name) for name in METRICS]
        for offset, rev in enumerate(entry.revisions):
            position = entry.start + offset
            assert position not in self.revs, f"row {position} came twice"
            self.revs[position] = rev
            self.rows[position] = entry.step.values[entry.first + offset, columns]
        if entry.token != NO_TOKEN:
            self.ids.append(entry.token)


@dataclass
class Live(Reply):
    """What came of it."""

    prompt: list[int] = field(default_factory=list)
    opening: Opening | None = None
    initial: list[Action] = field(default_factory=list)
    revisions: dict[int, list[Action]] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The first position that was computed and not read from the cache."""
        return min(self.revs)

    def rev(self, position: int) -> int:
        return self.revs[max(position, self.first)]


def beginning(text: int, length: int) -> list[int]:
    """Texts 0 and 1 have their first 70 tokens in common."""
    start = [3 + (11 * at) % 250 for at in range(70)]
    rest = [3 + (7 * text + 5 * at + at * at) % 250 for at in range(MOST)]
    return ((start + rest) if text < 2 else rest)[:length]


def _fixed(action: Action, parts: Passes) -> Action:
    """The same by positions, for a reply with these parts."""
    if not action.part:
        return action
    start, end = parts.get(action.part, (1, 1))
    if action.first is not None:
        end = start + action.first if end is None else min(end, start + action.first)
    return replace(action, part="", first=None, start=start, end=end)


class Schedule:
    """Several runs, asked of one engine."""

    _numbers = itertools.count()

    def __init__(
        self, engine: EngineService, asked: list[Asked], directions: dict[str, torch.Tensor], block: int
    ) -> None:
        """
        Args:
            engine: whose cache is small, so that runs are thrown out.
            asked: the runs.
            directions: of the vectors that the engine has, [hidden_size] each, at layer 1.
            block: tokens of a block of its cache.
        """
        self.engine = engine
        self.asked = asked
        self.directions = directions
        self.block = block
        self.live: dict[int, Live] = {}

    async def play(self) -> None:
        for wave in range(3):
            now = [index for index, one in enumerate(self.asked) if one.wave == wave]
            for index in now:
                self.live[index] = self._begin(index)
            await asyncio.gather(*(self._run(index) for index in now))

    def _begin(self, index: int) -> Live:
        one = self.asked[index]
        prompt = beginning(one.text, one.length)
        before = self.live.get(one.after) if one.after is not None else None
        if before is not None and before.ids and self.asked[one.after or 0].wave < one.wave:
            prompt = [*before.prompt, *before.ids, *beginning(2, 1 + one.length // 10)][: MOST - 20]
        live = Live(prompt=prompt)
        if one.marks is not None:
            # Nothing of the prompt: it may end within a character.
            live.opening = Opening(one.marks, len(prompt), "thought" if one.opened else "undecided", "", ())
        live.initial = live.revisions[0] = self.decided(one.sliders, prompt)
        return live

    def decided(self, said: Sliders, prompt: list[int]) -> list[Action]:
        vectors = self.engine.offer.vectors
        strengths = {name: strength for name, (strength, _) in said.items()}
        return decide_all(
            strengths, {name: how for name, (_, how) in said.items()}, vectors, len(prompt), LAYERS,
            thinks=True,
        )  # fmt: skip

    async def _run(self, index: int) -> None:
        one, live = self.asked[index], self.live[index]
        name = f"run-{next(self._numbers)}"  # as the server names them, no two alike
        tasks: list[asyncio.Task[Any]] = []
        changes = dict(one.changes)

        def take(entry: Any) -> None:
            before = len(live.ids)
            live.take(entry)
            if len(live.ids) == before:
                return
            if (said := changes.get(len(live.ids))) is not None:
                rev = len(live.revisions)
                live.revisions[rev] = self.decided(said, live.prompt)
                tasks.append(asyncio.ensure_future(self.engine.steer(name, rev, live.revisions[rev])))
            if len(live.ids) == one.stop_at:
                generating.cancel()

        generating = asyncio.ensure_future(
            self._generate(name, live, one.tokens, live.initial, take, read_most=one.read_most)
        )
        await asyncio.wait([generating])
        if not generating.cancelled():
            generating.result()
        await asyncio.gather(*tasks)

    async def _generate(
        self,
        name: str,
        live: Live,
        tokens: int,
        actions: list[Action],
        take: Any,
        *,
        cached: bool = True,
        read_most: int | None = None,
    ) -> None:
        options = RunOptions(
            name,
            wants=Wants(tuple(METRICS)),
            actions=tuple(actions),
            read_most=read_most,
            opening=live.opening,
        )
        most = min(tokens, MOST - len(live.prompt))
        sampling = {"max_tokens": most, "temperature": 0.0, "ignore_eos": True}
        await self.engine.generate(RunRequest(live.prompt, sampling, options, read_cache=cached), take)

    def parts(self, live: Live) -> Passes:
        """Where thought and answer of its reply are."""
        if live.opening is None:
            return {}
        opened = live.opening.part == "thought"
        return passes(self.engine.tokenizer, live.opening.marks, len(live.prompt), live.ids, opened)

    def as_it_was(self, live: Live) -> list[Action]:
        """What acted on each of its positions, as actions that need no change on the way."""
        end = len(live.prompt) + len(live.ids) - 1
        parts = self.parts(live)
        found: list[Action] = []
        at = 0
        while at < end:
            rev = live.rev(at)
            until = at
            while until < end and live.rev(until) == rev:
                until += 1
            for action in live.revisions[rev]:
                action = _fixed(action, parts)
                start, stop = max(at, action.start), min(until, action.end or until)
                if start < stop:
                    found.append(replace(action, start=start, end=stop))
            at = until
        return found

    async def check(self, index: int) -> None:
        live = self.live[index]
        who = f"run {index} of {self.asked}"
        if not live.ids:
            return
        until = len(live.prompt) + len(live.ids) - 1
        positions = range(live.first, until)
        assert live.first % self.block == 0, f"{who}: a part of a block was read"
        most = self.asked[index].read_most
        assert most is None or live.first <= most, f"{who}: more than {most} tokens were read"
        assert live.first < len(live.prompt), f"{who}: the last token of the prompt was not computed"
        assert [p for p in positions if p not in live.revs] == [], f"{who}: rows are missing"
        alone = Live(prompt=live.prompt)
        await self._generate(
            f"alone-{next(self._numbers)}",
            alone,
            len(live.ids),
            self.as_it_was(live),
            alone.take,
            cached=False,
        )
        assert alone.first == 0, "the reference has read of the cache"
        assert live.ids == alone.ids, f"{who}: other tokens"
        mine, theirs = (np.stack([r.rows[p] for p in positions]) for r in (live, alone))
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-4, err_msg=who)

    def by_transformers(self, model: Any, index: int) -> None:
        """The same tokens from transformers, with hooks."""
        live = self.live[index]
        if not live.ids:
            return
        acting = self.as_it_was(live)

        def steering(position: int) -> list[tuple[int, torch.Tensor, float]]:
            return [
                (layer, self.directions[action.vector], action.strength)
                for action in acting
                if action.start <= position < (action.end or 0)
                for layer in (range(action.layers[0], action.layers[1] + 1) if action.layers else [1])
            ]

        found = greedy(model, live.prompt, len(live.ids), steering, ignore_eos=True)
        until = next((at for at, gap in enumerate(found.gaps) if gap < 1e-3), len(found.ids))
        assert live.ids[:until] == found.ids[:until], f"run {index} of {self.asked}"
