"""The cache of prefixes and prompts in pieces: whatever runs share, and whenever somebody moves a slider,
each reply and each row is what the run alone would have had with nothing cached, and what transformers
computes.

On the odd engine: blocks of 32 tokens, steps of at most 64, and a cache that seven runs overfill, so that
runs are thrown out and come back to what is left of theirs.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from steersight.engine.errors import RunFailedError
from steersight.text.thoughts import Marks

from .conftest import Server
from .family_reference import FamilyReference
from .odd import BLOCK, ODD_VECTORS, odd_vector
from .planted_cache import errors
from .schedules import Asked, Schedule

SCHEDULES = int(os.environ.get("STEERSIGHT_SCHEDULES", "12"))
"""`make prove-prefixes` tries 500."""
pytestmark = [pytest.mark.engine, pytest.mark.timeout(600 + 12 * SCHEDULES)]
MARKS = [Marks("ww", "w" * 12), Marks("w", "w" * 33), Marks("<|end|>", "<|end|>" * 9)]
"""Of thoughts. The random model mostly repeats a letter or its last token, so these come, in pieces."""
SETTINGS: list[dict[str, Any]] = [
    {}, {"scope": "prompt"}, {"scope": "reply"}, {"first": 3}, {"layers": [0, 1]}, {"scope": "thought"},
    {"scope": "answer"}, {"scope": "thought", "first": 3}, {"scope": "answer", "first": 20},
]  # fmt: skip
sliders = st.dictionaries(
    st.sampled_from(sorted(ODD_VECTORS)),
    st.tuples(st.sampled_from([0.2, -0.3]), st.sampled_from(SETTINGS)),
    max_size=2,
)
asked = st.builds(
    Asked,
    wave=st.integers(0, 2), text=st.integers(0, 2), length=st.integers(30, 170),
    after=st.none() | st.integers(0, 8), tokens=st.integers(1, 70), sliders=sliders,
    changes=st.lists(st.tuples(st.integers(1, 40), sliders), max_size=3),
    stop_at=st.none() | st.integers(1, 40), read_most=st.sampled_from([*[None] * 5, 0, 40, 100]),
    marks=st.sampled_from([None, *MARKS]), opened=st.booleans(),
)  # fmt: skip


@pytest.fixture(scope="session")
def independent(odd_server: Server) -> Any:
    """The odd model in transformers."""
    return FamilyReference(odd_server.engine.options.model).model


@pytest.fixture(scope="session")
def directions() -> dict[str, torch.Tensor]:
    """Of the odd server's vectors."""
    return {
        name: torch.nn.functional.normalize(odd_vector(name, seed).directions[0], dim=0)
        for name, seed in ODD_VECTORS.items()
    }


@pytest.fixture(scope="session")
def tried() -> dict[str, int]:
    return {"schedules": 0, "cached": 0, "runs": 0, "changed": 0, "parted": 0}


@settings(
    max_examples=SCHEDULES, phases=[Phase.generate], database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.lists(asked, min_size=2, max_size=9))
async def test_every_run_is_what_it_would_have_been_alone(
    odd_server: Server,
    independent: Any,
    directions: dict[str, torch.Tensor],
    tried: dict[str, int],
    asked: list[Asked],
) -> None:
    schedule = Schedule(odd_server.engine, asked, directions, BLOCK)
    await schedule.play()
    for index, live in schedule.live.items():
        await schedule.check(index)
        if live.ids:
            tried["runs"] += 1
            tried["cached"] += live.first > 0
            tried["changed"] += live.rev(len(live.prompt) + len(live.ids) - 2) > 0
            thought, answer = (schedule.parts(live).get(part, (0, 0))[0] for part in ("thought", "answer"))
            in_parts = any(one.part for actions in live.revisions.values() for one in actions)
            tried["parted"] += in_parts and 0 < thought < answer
    sample = tried["schedules"] % len(asked)
    schedule.by_transformers(independent, sample)
    tried["schedules"] += 1


async def test_the_schedules_were_worth_trying(odd_server: Server, tried: dict[str, int]) -> None:
    """That caches were read and sliders were moved, or the test before has shown nothing."""
    print(tried)  # noqa: T201
    assert tried["schedules"] == SCHEDULES
    assert tried["cached"] > SCHEDULES / 2
    assert tried["changed"] > SCHEDULES / 2
    assert tried["parted"] > SCHEDULES / 4
    held = await odd_server.engine.held()
    assert (held["vllm"], held["nnsight"], held["observer"]) == (0, 0, 0)


FRESH = Asked(
    wave=0, text=0, length=130, after=None, tokens=70, sliders={}, changes=[], stop_at=None
)  # fmt: skip
PLANTS = {
    # Somebody steers from the start, and another asks the same unsteered.
    "keys": [
        replace(FRESH, sliders={"stays": (-0.3, {})}),
        replace(FRESH, wave=1),
    ],
    # Somebody steers in mid-run, and goes on unsteered.
    "feed": [
        replace(FRESH, changes=[(4, {"stays": (-0.3, {})})]),
        replace(FRESH, wave=1, after=0, tokens=8),
    ],
}


@pytest.mark.parametrize("plant", PLANTS)
async def test_a_planted_error_is_found(
    odd_server: Server, directions: dict[str, torch.Tensor], plant: str
) -> None:
    """What acted on a block left out of its key, or the scheduler not told of a slider: without the ledger
    the check of schedules finds it, and with it the run that would read such a block fails instead."""
    texts = itertools.count(10 * (1 + list(PLANTS).index(plant)))  # of which nothing is cached

    async def play() -> None:
        text = next(texts)
        asked = [replace(one, text=text) for one in PLANTS[plant]]
        schedule = Schedule(odd_server.engine, asked, directions, BLOCK)
        await schedule.play()
        await schedule.check(1)

    await play()
    with errors(plant, "no ledger"), pytest.raises(AssertionError, match="run 1 of"):
        await play()
    with errors(plant), pytest.raises(RunFailedError, match="computed with other steering"):
        await play()
    await play()
