"""The engine's tokens and every number of its rows against Hugging Face transformers in fp32."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.engine.step import NO_TOKEN
from steersight.vectors.action import Action

from .banks import steering_vector
from .conftest import HIDDEN, TEST_VECTORS, Server
from .reference import Reading, Reference
from .taken import Taken, beyond_rounding

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROMPTS = [
    "What is the capital of France?",
    "Write a haiku about autumn.",
    "Explain why the sky is blue to a child.",
    "List three uses of a paper clip.",
    "Tell me about Paris.",
    "What should I cook tonight?",
    "Translate 'good morning' into Spanish.",
    "Who wrote Hamlet, and when?",
    "Give me a short pep talk.",
    "How does a bicycle stay upright?",
]
TOLERANCE = 1e-3
ALTERNATIVES = 20
TIE = 1e-4
"""Nats: fp32 in two programs tells log probabilities this close apart in either order."""
# A cosine crosses zero, where a relative error means nothing: below this size the error is held absolute.
COSINE_FLOOR = 0.05


class Collected:
    """Tokens and rows of one run, straight from the engine."""

    def __init__(self, server: Server, text: str, adapter: str = "", edits: tuple[str, ...] = ()) -> None:
        self.adapter = adapter
        self.edits = edits
        self.server = server
        self.prompt: list[int] = server.engine.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        self.metrics: list[str] = []
        self.taken = Taken()

    async def run(self, name: str, strengths: dict[str, float], tokens: int = 64) -> Collected:
        actions = [Action(vector, strength) for vector, strength in strengths.items() if strength]
        return await self.act(name, actions, tokens)

    async def act(
        self, name: str, actions: list[Action], tokens: int = 32, metrics: list[str] | None = None
    ) -> Collected:
        self.metrics = metrics or ["residual_norm", "update_norm", "cosine_below"]
        options = RunOptions(
            name, wants=Wants(tuple(self.metrics), alternatives=ALTERNATIVES), actions=tuple(actions),
            adapter=self.adapter,
        )  # fmt: skip
        request = RunRequest(
            self.prompt,
            {"max_tokens": tokens, "temperature": 0.0},
            options,
            edits=self.edits,
            read_cache=False,
        )
        await self.server.engine.generate(request, self.taken.take)
        assert self.taken.positions == list(range(len(self.ids) - 1))
        return self

    @property
    def reply(self) -> list[int]:
        return self.taken.tokens

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.reply

    def rows(self) -> np.ndarray:
        """[positions, metrics, layers] of all positions but the last token's, as they are on the wire."""
        return self.taken.values(self.metrics)


def worst(rows: np.ndarray, reading: Reading) -> dict[str, float]:
    """Largest relative error per metric, beyond what half precision accounts for."""
    count = len(rows)
    found = {}
    for index, name in enumerate(("residual_norm", "update_norm", "cosine_below")):
        expected = getattr(reading, name)[:count]
        floor = COSINE_FLOOR if name == "cosine_below" else 0.0
        error = beyond_rounding(name, rows[:, index], expected)
        found[name] = float((error / np.maximum(np.abs(expected), floor)).max())
    return found


def check_alternatives(run: Collected, reading: Reading) -> None:
    """The likeliest tokens are the reference's in order, with its log probabilities, of the last token of the
    prompt and of all that were written but the last. Where two of the reference's are within a rounding of
    each other, either may stand first."""
    positions, ids, found = run.taken.alternatives()
    assert positions == list(range(len(run.prompt) - 1, len(run.ids) - 1))
    assert ids.shape == found.shape == (len(run.reply), ALTERNATIVES)
    logprobs = reading.logprobs[positions]
    expected = np.argsort(-logprobs, axis=1, kind="stable")[:, :ALTERNATIVES]
    sure = np.take_along_axis(logprobs, expected, axis=1)
    mine = np.take_along_axis(logprobs, ids, axis=1)
    assert np.abs(found - mine).max() <= TOLERANCE
    assert np.abs(sure - mine)[ids != expected].max(initial=0.0) <= TIE
    assert (ids != expected).mean() < 0.01
    # The token that was written is the first of them, and has the log probability that it came with.
    assert ids[:, 0].tolist() == run.reply
    assert found[:, 0].tolist() == [entry.logprob for entry in run.taken.entries if entry.token != NO_TOKEN]


async def test_greedy_replies_and_rows_equal_transformers(
    server: Server, reference: Reference, record_property: Callable[[str, object], None]
) -> None:
    runs = await asyncio.gather(
        *(Collected(server, text).run(f"truth-{i}", {}) for i, text in enumerate(PROMPTS))
    )
    errors: dict[str, float] = {}
    compared = 0
    for text, run in zip(PROMPTS, runs, strict=True):
        reading = reference.read(run.ids)
        ties = reading.ties(run.ids, len(run.prompt))
        assert reading.differing(run.ids, len(run.prompt)) == ties, f"{text!r} differs from transformers"
        assert not ties, f"{text!r}: ties at {ties}, where the reference is as undecided"
        compared += len(run.reply)
        assert len(run.rows()) == len(run.ids) - 1
        check_alternatives(run, reading)
        for name, error in worst(run.rows(), reading).items():
            errors[name] = max(errors.get(name, 0.0), error)
    record_property("largest relative errors", errors)
    assert compared > 400
    assert max(errors.values()) <= TOLERANCE, errors


def directions(server: Server, strengths: dict[str, float]) -> list[tuple[int, torch.Tensor, float]]:
    vectors = server.engine.offer.vectors
    return [
        (layer, vectors[name].directions[index], strength)
        for name, strength in strengths.items()
        for index, layer in enumerate(vectors[name].layers)
    ]


@pytest.mark.parametrize(
    "strengths",
    [{"north": 0.2}, {"north": -0.3, "east": 0.15}, {"north": 0.9, "east": 0.9}, {"east": 5.0}],
    ids=["one", "two", "strong", "capped"],
)
async def test_fixed_strength_equals_a_forward_hook(
    server: Server, reference: Reference, strengths: dict[str, float]
) -> None:
    text = "Tell me about Paris."
    steered, plain = await asyncio.gather(
        Collected(server, text).run(f"steered-{strengths}", strengths, tokens=48),
        Collected(server, text).run(f"plain-{strengths}", {}, tokens=48),
    )
    push = directions(server, strengths)
    reading = reference.read(steered.ids, lambda _position: push)
    assert reading.differing(steered.ids, len(steered.prompt)) == []
    assert max(worst(steered.rows(), reading).values()) <= TOLERANCE
    check_alternatives(steered, reading)
    assert steered.ids != plain.ids, "the vector did nothing"
    # The neighbour in the same batch is what it would have been alone.
    unsteered = reference.read(plain.ids)
    assert unsteered.differing(plain.ids, len(plain.prompt)) == []
    assert max(worst(plain.rows(), unsteered).values()) <= TOLERANCE


async def test_strength_zero_is_identical_to_none(server: Server) -> None:
    text = "Write a haiku about autumn."
    none = await Collected(server, text).run("none", {})
    zero = await Collected(server, text).run("zero", dict.fromkeys(TEST_VECTORS, 0.0))
    assert zero.ids == none.ids
    assert np.array_equal(zero.rows(), none.rows())


async def test_each_of_many_runs_in_one_batch_is_steered_by_vectors_of_its_own(
    server: Server, reference: Reference
) -> None:
    """32 runs at once, each with two vectors of its own: all are what forward hooks make of them."""
    offer, count, tokens = server.engine.offer, 32, 12
    units = torch.nn.functional.normalize(
        torch.randn(2 * count, HIDDEN, generator=torch.Generator().manual_seed(9)), dim=-1
    )
    vectors = [steering_vector(f"own{n}", {5 + n % 20: unit}) for n, unit in enumerate(units)]
    strengths = [(0.1 + n / 200, -0.2) for n in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        lent = [await stack.enter_async_context(offer.lent(vector)) for vector in vectors]
        runs = await asyncio.gather(
            *(
                Collected(server, PROMPTS[n % len(PROMPTS)]).run(
                    f"many-{n}", dict(zip(lent[2 * n : 2 * n + 2], strengths[n], strict=True)), tokens
                )
                for n in range(count)
            )
        )
    for n, run in enumerate(runs):
        push = [
            (vector.layers[0], vector.directions[0], strength)
            for vector, strength in zip(vectors[2 * n : 2 * n + 2], strengths[n], strict=True)
        ]
        reading = reference.read(run.ids, lambda _position, push=push: push)
        assert reading.differing(run.ids, len(run.prompt)) == [], f"run {n}"
        assert max(worst(run.rows(), reading).values()) <= TOLERANCE, f"run {n}"
