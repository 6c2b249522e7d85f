"""Frames that are nearly right: golden ones, damaged in every way that a stranger may think of. Pure, seeded.

Half of the damage is done to bytes, which mostly gives no msgpack at all; the other half to the value before
it is packed, which gets past the unpacking and tries the models behind it.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack

HUGE_HEADS = (
    b"\xdf\xff\xff\xff\xff",  # a map of four thousand million entries
    b"\xdd\xff\xff\xff\xff",  # a list
    b"\xdb\xff\xff\xff\xff",  # a text
    b"\xc6\xff\xff\xff\xff",  # bytes
    b"\xc9\xff\xff\xff\xff\x05",  # an extension
    b"\xde\xff\xff",
    b"\xdc\xff\xff",
    b"\xc8\xff\xff\x01",
)
WORDS = (
    "type", "run", "id", "rev", "messages", "sampling", "strengths", "after", "epoch", "starts", "prefix_ids",
    "rows_from", "__class__", "",
)  # fmt: skip


class _Raw:
    """Bytes that go into a value as they are."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def pack(value: Any) -> bytes:
    """msgpack, with `_Raw` wherever something is to stand that the packer would not write."""
    if isinstance(value, _Raw):
        return value.data
    if isinstance(value, dict):
        parts = [pack(part) for pair in value.items() for part in pair]
        return b"\xdf" + struct.pack(">I", len(value)) + b"".join(parts)
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    packed: bytes = msgpack.packb(value)
    return packed


# ---------------------------------------------------------------- bytes


def flip(data: bytes, dice: random.Random, _others: Sequence[bytes]) -> bytes:
    """Some bits the other way."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        out[dice.randrange(len(out))] ^= 1 << dice.randrange(8)
    return bytes(out)


def truncate(data: bytes, dice: random.Random, _: Sequence[bytes]) -> bytes:
    """The end is missing."""
    return data[: dice.randrange(len(data))]


def splice(data: bytes, dice: random.Random, others: Sequence[bytes]) -> bytes:
    """The beginning of one and the end of another."""
    other = dice.choice(others)
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other)) :]


def append(data: bytes, dice: random.Random, others: Sequence[bytes]) -> bytes:
    """Something after the end."""
    return data + dice.choice((dice.randbytes(dice.randrange(1, 20)), dice.choice(others)))


def insert(data: bytes, dice: random.Random, _: Sequence[bytes]) -> bytes:
    """Noise in the middle."""
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at:]


def claim(data: bytes, dice: random.Random, _: Sequence[bytes]) -> bytes:
    """A head that claims far more than follows."""
    at = dice.randrange(len(data))
    return data[:at] + dice.choice(HUGE_HEADS) + data[at + 1 :]


def nest(data: bytes, dice: random.Random, _: Sequence[bytes]) -> bytes:
    """Lists in lists, or maps in maps, deeper than any reader's stack."""
    head = dice.choice((b"\x91", b"\x81\xa1a"))
    return head * dice.choice((3, 500, 1100, 20_000)) + data


def noise(_data: bytes, dice: random.Random, _: Sequence[bytes]) -> bytes:
    """Nothing but noise."""
    return dice.randbytes(dice.randrange(200))


# ---------------------------------------------------------------- values


def strange(dice: random.Random) -> Any:
    """A value that nobody asked for."""
    choices: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: dice.choice((True, False)),
        lambda: dice.choice((0, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**64 - 1, -(2**63))),
        lambda: dice.choice((0.0, -0.0, 1e308, math.nan, math.inf, -math.inf, 5e-324)),
        lambda: dice.choice(("", "x" * 70, "\u0000", "\ud7ff", "a b", "../..", "{}", "🙂" * 30)),
        lambda: "y" * dice.choice((1_000, 100_000, 260_000)),
        lambda: dice.randbytes(dice.randrange(40)),
        list,
        dict,
        lambda: [None] * dice.choice((1, 300, 5_000)),
        lambda: {str(number): number for number in range(dice.choice((1, 40, 2_000)))},
        lambda: {"type": "hello"},
        lambda: msgpack.ExtType(dice.randrange(128), dice.randbytes(dice.randrange(9))),
        lambda: msgpack.Timestamp(dice.randrange(2**33), 0),
        lambda: _Raw(b"\xa3\xff\xfe\xfd"),  # a text that is not UTF-8
        lambda: _Raw(b"\xc1"),  # a byte that msgpack never uses
        lambda: _Raw(b"\x91" * dice.choice((100, 900, 3_000)) + b"\xc0"),
        lambda: _Raw(dice.choice(HUGE_HEADS)),
    )
    return dice.choice(choices)()


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield value, key
        yield from places(item)


def change(data: bytes, dice: random.Random, others: Sequence[bytes]) -> bytes:
    """The frame's value with one to three places made strange."""
    value = msgpack.unpackb(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        found = list(places(value))
        if not found:
            break
        container, key = dice.choice(found)
        match dice.randrange(8):
            case 0 if isinstance(container, dict):
                del container[key]
            case 1 if isinstance(container, dict):
                container[dice.choice(WORDS)] = strange(dice)
            case 2 if isinstance(container, dict):
                twice = dice.choice((key, "type"))
                container[_Raw(pack(twice))] = strange(dice)  # the same key once more
            case 3 if isinstance(container, dict):
                container[dice.choice((1, None, 2.5, b"type", True))] = strange(dice)
            case 4 if isinstance(container, list):
                container[key:key] = [container[key]] * dice.choice((1, 40, 5_000))
            case 5:
                container[key] = msgpack.unpackb(dice.choice(others))
            case _:
                container[key] = strange(dice)
    return pack(value)


BYTES = (flip, truncate, splice, append, insert, claim, nest, noise)


def mutated(frames: Sequence[bytes], dice: random.Random) -> bytes:
    """One damaged frame."""
    data = dice.choice(frames)
    how = change if dice.random() < 0.5 else dice.choice(BYTES)
    out = how(data, dice, frames)
    return flip(out, dice, frames) if out and dice.random() < 0.1 else out
