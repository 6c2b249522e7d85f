"""The golden frames: what Steersight puts on the wire, byte for byte.

The TypeScript codec is tested against the same file; a change here is a change of the contract. After one
that is meant, run scripts/golden_frames.py and look at the difference.
"""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from pydantic import BaseModel

from steersight.protocol.codec import FrameError, decode_client, decode_server, encode, read_server
from steersight.protocol.messages import CLIENT_TYPES, SERVER_TYPES

GOLDEN = Path(__file__).parent / "golden" / "frames.json"
ENTRIES: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))


def unplain(value: Any) -> Any:
    """The frame's value again from its JSON form."""
    if isinstance(value, dict):
        if set(value) == {"$hex"}:
            return bytes.fromhex(value["$hex"])
        return {key: unplain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unplain(item) for item in value]
    return value


def named(side: str) -> list[Any]:
    return [pytest.param(entry, id=entry["name"]) for entry in ENTRIES if entry["direction"] == side]


@pytest.mark.parametrize("entry", named("client"))
def test_client_frame(entry: dict[str, Any]) -> None:
    value = unplain(entry["frame"])
    frame = CLIENT_TYPES[value["type"]].model_validate(value)
    assert encode(frame).hex() == entry["hex"]
    assert decode_client(bytes.fromhex(entry["hex"])) == frame


@pytest.mark.parametrize("entry", named("server"))
def test_server_frame(entry: dict[str, Any]) -> None:
    value = unplain(entry["frame"])
    frame = SERVER_TYPES[value["type"]].model_validate(value)
    assert encode(frame).hex() == entry["hex"]
    assert decode_server(bytes.fromhex(entry["hex"])) == frame


def newer(value: Any) -> Any:
    """The frame as a newer server could send it: a field more in every map that is a frame of its own."""
    if isinstance(value, dict):
        return {key: newer(item) for key, item in value.items()} | {"from_the_future": {"x": [1]}}
    if isinstance(value, list):
        return [newer(item) for item in value]
    return value


@pytest.mark.parametrize("entry", named("server"))
def test_a_reader_ignores_fields_that_it_does_not_know(entry: dict[str, Any]) -> None:
    value = unplain(entry["frame"])
    more = newer(value)
    for free in ("strengths", "settings"):  # maps by name: a key more is an entry, not a field
        if free in value:
            more[free] = value[free]
    data = msgpack.packb(more)
    assert read_server(data) == read_server(msgpack.packb(value)) == decode_server(msgpack.packb(value))
    with pytest.raises(FrameError):
        decode_server(data)


CLOSED = {("rows", "dtype")}
"""Choices of words that a reader cannot leave to the future: without it the bytes mean nothing."""


def choices(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Paths of all fields that are one of several words, and of those in models within."""
    schema = model.model_json_schema(mode="serialization")

    def walk(part: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]
        if "enum" in part or "const" in part:
            yield path
        for name, inner in part.get("properties", {}).items():
            yield from walk(inner, (*path, name))
        for key in ("items", "additionalProperties"):
            if isinstance(part.get(key), dict):
                yield from walk(part[key], (*path, "*"))
        for option in part.get("anyOf", []):
            yield from walk(option, path)

    for found in walk(schema, path):
        if found[-1] != "type" and found not in CLOSED:
            yield found


def with_word(value: Any, path: tuple[str, ...], word: str) -> tuple[Any, bool]:
    """A copy with another word at every place of the path, and whether there is one."""
    if not path:
        return (word, True) if isinstance(value, str) else (value, False)
    key, *rest = path
    keys = list(value) if key == "*" and isinstance(value, dict) else [key]
    if key == "*" and isinstance(value, list):
        keys = list(range(len(value)))
    if not isinstance(value, dict | list):
        return value, False
    copy, there = typing.cast(Any, value.copy()), False
    for each in keys:
        copy[each], found = with_word(value[each], tuple(rest), word)
        there = there or found
    return copy, there


def test_a_reader_keeps_words_that_it_does_not_know() -> None:
    """Every choice of words in every frame of a server, as the models tell: no new one is forgotten."""
    paths = {path for kind, model in SERVER_TYPES.items() for path in choices(model, (kind,))}
    assert ("engine", "state") in paths
    assert ("welcome", "vectors", "*", "operators", "*") in paths
    for kind, *path in paths:
        entries = [unplain(entry["frame"]) for entry in ENTRIES if entry["frame"]["type"] == kind]
        changed = [with_word(value, tuple(path), "from_the_future") for value in entries]
        data = [msgpack.packb(value) for value, there in changed if there]
        assert data, f"No golden frame has {kind}.{'.'.join(path)}."
        for each in data:
            assert "from_the_future" in str(read_server(each)), (kind, path)
            with pytest.raises(FrameError):
                decode_server(each)


def test_every_type_occurs() -> None:
    seen = {(entry["direction"], entry["frame"]["type"]) for entry in ENTRIES}
    assert seen == {("client", kind) for kind in CLIENT_TYPES} | {("server", kind) for kind in SERVER_TYPES}


def test_names_are_unique() -> None:
    assert len({entry["name"] for entry in ENTRIES}) == len(ENTRIES)


def test_rows_block_is_little_endian_half_floats_in_c_order() -> None:
    """Written out by hand once, so that the block's layout does not rest on the codec's own word."""
    rows = next(entry for entry in ENTRIES if entry["name"] == "rows")["frame"]
    assert rows["count"] * len(rows["metrics"]) * rows["layers"] * 2 == 24
    # 5.5, 6.25, 15.984375 | 1, 0.5, -0.25 || -2, 65504, 2**-24 | -1, -0, about 1/3
    assert rows["data"]["$hex"] == "80454046fe4b003c003800b400c0ff7b010000bc00805535"
