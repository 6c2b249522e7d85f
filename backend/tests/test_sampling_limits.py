"""Whatever `sampling` a client may send, vLLM takes: every limit of ours is at most vLLM's own."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from pydantic import ValidationError

from steersight.engine import libnuma
from steersight.protocol.messages import MAX_STOP_STRINGS, MAX_TEMPERATURE, MIN_REPETITION_PENALTY, Sampling

SMALLEST = 5e-324
EDGES: dict[str, tuple[Any, ...]] = {
    "max_tokens": (1, 2, 131_072),
    "temperature": (
        0.0,
        SMALLEST,
        1e-6,
        1e-5,
        0.01,
        1.0,
        math.nextafter(MAX_TEMPERATURE, 0),
        MAX_TEMPERATURE,
    ),
    "top_p": (SMALLEST, 0.5, 1.0),
    "top_k": (0, 1, 2, 49_152, 1_000_000),
    "min_p": (0.0, SMALLEST, 0.5, 1.0),
    "seed": (None, 0, 1, 2**31, 2**32, 2**63 - 1),
    "stop": ([], ["x"], ["x" * 128] * MAX_STOP_STRINGS, ["\x00"], ["\u202e"], ["👩‍👩‍👧"]),
    "repetition_penalty": (MIN_REPETITION_PENALTY, 0.5, 1.0, 5.0),
}
BEYOND: dict[str, tuple[Any, ...]] = {
    "max_tokens": (0, -1, 131_073),
    "temperature": (-SMALLEST, math.nextafter(MAX_TEMPERATURE, 3), 5.0, math.inf, math.nan),
    "top_p": (0.0, -0.5, math.nextafter(1.0, 2), math.nan),
    "top_k": (-1, 1_000_001),
    "min_p": (-SMALLEST, math.nextafter(1.0, 2)),
    "seed": (-1, 2**63),
    "stop": ([""], ["x" * 129], ["x"] * (MAX_STOP_STRINGS + 1)),
    "repetition_penalty": (0.0, SMALLEST, -1.0, math.nextafter(5.0, 6), math.inf),
}


def taken_by_vllm(sampling: Sampling) -> None:
    """Build what `EngineService.generate` builds; raises what vLLM raises."""
    libnuma.load()
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    fields = sampling.model_dump()
    SamplingParams(
        **fields, logprobs=0, detokenize=bool(fields["stop"]), output_kind=RequestOutputKind.DELTA
    ).clone()


@pytest.mark.parametrize("name", EDGES)
def test_every_edge_is_taken(name: str) -> None:
    for value in EDGES[name]:
        taken_by_vllm(Sampling.model_validate({name: value}))


def test_edges_are_taken_together() -> None:
    extremes = [(name, (values[0], values[-1])) for name, values in EDGES.items()]
    for values in itertools.product(*(both for _, both in extremes)):
        fields = {name: value for (name, _), value in zip(extremes, values, strict=True)}
        taken_by_vllm(Sampling.model_validate(fields))


@pytest.mark.parametrize("name", BEYOND)
def test_what_lies_beyond_is_refused_by_us(name: str) -> None:
    for value in BEYOND[name]:
        with pytest.raises(ValidationError):
            Sampling.model_validate({name: value})


def test_no_field_is_forgotten() -> None:
    assert EDGES.keys() == BEYOND.keys() == Sampling.model_fields.keys()
