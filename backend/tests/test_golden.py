"""The golden frames: what Steersight puts on the wire, byte for byte.

The TypeScript codec is tested against the same file; a change here is a change of the contract. After one
that is meant, run scripts/golden_frames.py and look at the difference.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from steersight.protocol.codec import decode_client, decode_server, encode
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
