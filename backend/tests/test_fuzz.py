"""The quick part of `bench.fuzz_frames`: some thousands of damaged frames against both decoders."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bench.fuzz_frames import decode_all, examine
from bench.mutations import BYTES, change, mutated
from bench.proving import BrokenPromiseError, golden
from steersight.protocol.codec import decode_client


def test_damaged_frames_raise_nothing_but_frame_errors() -> None:
    seen = decode_all(20_000, seed=7)
    assert seen.total() == 20_000
    # The damage reaches every depth: bytes that are no msgpack, maps of no known type, fields that are wrong,
    # and some frames that are still good.
    assert min(seen[kind] for kind in ("bad_frame", "unknown_type", "invalid", "taken")) > 100, seen


def test_the_same_seed_gives_the_same_frames() -> None:
    whole = list(golden("client").values())
    first, second = ([mutated(whole, random.Random(3)) for _ in range(50)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("damage", [*BYTES, change], ids=lambda damage: damage.__name__)
def test_each_kind_of_damage_does_some(damage: object) -> None:
    assert callable(damage)
    whole = list(golden("client").values())
    dice = random.Random(5)
    results = Counter(damage(data, dice, whole) == data for data in whole * 10)
    assert results[False] > results[True]


def test_another_exception_is_found() -> None:
    def broken(_: bytes) -> None:
        raise KeyError("type")

    with pytest.raises(BrokenPromiseError, match="KeyError"):
        examine(b"\xc0", broken, "1")
    assert examine(b"\xc0", decode_client, "1") == "bad_frame"
