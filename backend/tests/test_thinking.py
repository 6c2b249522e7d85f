"""A thinking model steered in its thought or in its answer only: the real engine's tokens and rows against
transformers with hooks in exactly those passes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from transformers import AutoTokenizer

from steersight.config import REPOSITORY
from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.protocol.messages import ChatMessage
from steersight.runs.prompt import build_prompt
from steersight.text.rendering import Renderer
from steersight.vectors.action import Action, decide_all

from .conftest import Server
from .parting import passes
from .reference import Reference
from .taken import Taken
from .test_engine_truth import TOLERANCE, directions, worst

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
TEMPLATE = REPOSITORY / "backend/tests/thinking.jinja"
METRICS = ("residual_norm", "update_norm", "cosine_below")
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def renderer(model_dir: str) -> Renderer:
    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.chat_template = TEMPLATE.read_text()
    return Renderer.of(tokenizer, "file", len(tokenizer))


class Thinking:
    """One run of the thinking template on the real engine."""

    def __init__(self, server: Server, renderer: Renderer, **told: object) -> None:
        self.engine = server.engine
        asked = [ChatMessage(role="user", content=QUESTION)]
        built = build_prompt(renderer, asked, 2000, template=told)
        assert built.opening is not None
        self.opening, self.prompt = built.opening, built.prompt.ids
        self.taken = Taken()

    def actions(self, settings: dict[str, dict[str, Any]]) -> list[Action]:
        vectors, layers = self.engine.offer.vectors, 30
        strengths = dict.fromkeys(settings, 0.15)
        return decide_all(strengths, settings, vectors, len(self.prompt), layers, thinks=True)

    async def run(
        self,
        name: str,
        settings: dict[str, dict[str, Any]],
        later: tuple[int, dict[str, dict[str, Any]]] | None = None,
    ) -> Thinking:
        """With `later`: (tokens of the reply after which, settings from then on)."""
        steering: list[asyncio.Task[Any]] = []

        def take(entry: Any) -> None:
            self.taken.take(entry)
            if later is not None and len(self.taken.tokens) == later[0] and not steering:
                call = self.engine.steer(name, 1, self.actions(later[1]))
                steering.append(asyncio.ensure_future(call))

        options = RunOptions(
            name, wants=Wants(METRICS), actions=tuple(self.actions(settings)), opening=self.opening
        )
        sampling = {"max_tokens": 60, "temperature": 0.0}
        await self.engine.generate(RunRequest(self.prompt, sampling, options, read_cache=False), take)
        await asyncio.gather(*steering)
        return self

    @property
    def reply(self) -> list[int]:
        return self.taken.tokens


def check(
    run: Thinking, server: Server, renderer: Renderer, reference: Reference, revisions: list[dict[str, Any]]
) -> dict[str, range]:
    """Hold a run against transformers, steered by each row's revision; returns where its parts are."""
    ids = run.prompt + run.reply
    split = len(run.prompt)
    found = passes(renderer.tokenizer, run.opening.marks, split, run.reply, opened=False)
    if run.opening.part == "answer":  # the prompt has ended the thought
        found = {"answer": (split - 1, None)}
    parts = {name: range(start, len(ids) if end is None else end) for name, (start, end) in found.items()}
    told = run.taken.revisions

    def steering(position: int) -> list[Any]:
        if position >= len(told):
            return []
        settings = revisions[told[position]]
        here = [
            name
            for name, setting in settings.items()
            if position in parts.get(setting["scope"], ())[: setting.get("first")]
        ]
        return directions(server, dict.fromkeys(here, 0.15))

    reading = reference.read(ids, steering)
    assert reading.differing(ids, len(run.prompt)) == reading.ties(ids, len(run.prompt)) == []
    rows = run.taken.values(list(METRICS))
    assert len(rows) == len(ids) - 1
    assert max(worst(rows, reading).values()) <= TOLERANCE
    return parts


async def test_steered_in_one_part_it_is_what_hooks_in_these_passes_make_of_it(
    server: Server, renderer: Renderer, reference: Reference
) -> None:
    thought, answer, first, moved = (
        {"north": {"scope": "thought"}},
        {"north": {"scope": "answer"}},
        {"north": {"scope": "thought", "first": 3}, "east": {"scope": "answer", "first": 2}},
        {"east": {"scope": "answer"}, "north": {"scope": "thought"}},
    )
    runs = await asyncio.gather(
        Thinking(server, renderer).run("in-thought", thought),
        Thinking(server, renderer).run("in-answer", answer),
        Thinking(server, renderer).run("in-the-first", first),
        Thinking(server, renderer).run("moved", {}, (8, moved)),
        Thinking(server, renderer).run("plain", {}),
    )
    revisions: list[list[dict[str, Any]]] = [[thought], [answer], [first], [{}, moved], [{}]]
    for run, states in zip(runs, revisions, strict=True):
        parts = check(run, server, renderer, reference, states)
        assert parts.keys() == {"thought", "answer"}
        assert len(parts["thought"]) > 5
    in_thought, in_answer, _, steered_late, plain = runs
    assert in_thought.reply != plain.reply, "the vector did nothing in the thought"
    # The pass that reads the last token of the thought's end is the first that differs.
    begin = check(in_answer, server, renderer, reference, [answer])["answer"].start
    same = begin + 1 - len(in_answer.prompt)
    assert in_answer.reply[:same] == plain.reply[:same]
    assert steered_late.taken.revisions[-1] == 1


async def test_a_thought_that_the_template_has_ended_leaves_an_answer_only(
    server: Server, renderer: Renderer, reference: Reference
) -> None:
    settings = {"north": {"scope": "answer"}, "east": {"scope": "thought"}}
    run = await Thinking(server, renderer, enable_thinking=False).run("no-thought", settings)
    parts = check(run, server, renderer, reference, [settings])
    assert "thought" not in parts
