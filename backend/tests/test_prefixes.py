"""The cache of prefixes and prompts in pieces: whatever runs share, and whenever somebody moves a slider,
each reply and each row is what the run alone would have had with nothing cached, and what transformers
computes.

On the odd engine: blocks of 32 tokens, steps of at most 64, and a cache that seven runs overfill, so that
runs are thrown out and come back to what is left of theirs.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .conftest import Server
from .family_reference import FamilyReference
from .odd import BLOCK, ODD_VECTORS, odd_vector
from .schedules import Asked, Schedule

pytestmark = [pytest.mark.engine, pytest.mark.timeout(3000)]

SCHEDULES = int(os.environ.get("STEERSIGHT_SCHEDULES", "25"))
"""More of them prove more: 500 take some ten minutes."""
sliders = st.dictionaries(
    st.sampled_from(sorted(ODD_VECTORS)),
    st.tuples(
        st.sampled_from([0.2, -0.3]),
        st.sampled_from([{}, {"scope": "prompt"}, {"scope": "reply"}, {"first": 3}, {"layers": [0, 1]}]),
    ),
    max_size=2,
)
asked = st.builds(
    Asked,
    wave=st.integers(0, 2), text=st.integers(0, 2), length=st.integers(30, 170),
    after=st.none() | st.integers(0, 8), tokens=st.integers(1, 70), sliders=sliders,
    changes=st.lists(st.tuples(st.integers(1, 40), sliders), max_size=3),
    stop_at=st.none() | st.integers(1, 40),
)  # fmt: skip


@pytest.fixture(scope="session")
def independent(odd_server: Server) -> Any:
    """The odd model in transformers."""
    return FamilyReference(odd_server.engine.options.model).model


@pytest.fixture(scope="session")
def tried() -> dict[str, int]:
    return {"schedules": 0, "cached": 0, "runs": 0, "changed": 0}


@settings(
    max_examples=SCHEDULES, phases=[Phase.generate], database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.lists(asked, min_size=2, max_size=9))
async def test_every_run_is_what_it_would_have_been_alone(
    odd_server: Server, independent: Any, tried: dict[str, int], asked: list[Asked]
) -> None:
    directions = {
        name: torch.nn.functional.normalize(odd_vector(name, seed).directions[0], dim=0)
        for name, seed in ODD_VECTORS.items()
    }
    schedule = Schedule(odd_server.engine, asked, directions, BLOCK)
    await schedule.play()
    for index, live in schedule.live.items():
        await schedule.check(index)
        if live.ids:
            tried["runs"] += 1
            tried["cached"] += live.first > 0
            tried["changed"] += live.rev(len(live.prompt) + len(live.ids) - 2) > 0
    sample = tried["schedules"] % len(asked)
    schedule.by_transformers(independent, sample)
    tried["schedules"] += 1


async def test_the_schedules_were_worth_trying(odd_server: Server, tried: dict[str, int]) -> None:
    """That caches were read and sliders were moved, or the test before has shown nothing."""
    print(tried)  # noqa: T201
    assert tried["schedules"] == SCHEDULES
    assert tried["cached"] > SCHEDULES / 2
    assert tried["changed"] > SCHEDULES / 2
    held = await odd_server.engine.held()
    assert (held["vllm"], held["nnsight"], held["observer"]) == (0, 0, 0)
