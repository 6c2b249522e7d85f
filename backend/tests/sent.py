"""Frames as whoever is sent them has them, held against their models on the way, and steps as the server has
them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from steersight.engine.channel import unpack
from steersight.engine.step import Step
from steersight.protocol import codec
from steersight.protocol.codec import WireMap
from steersight.protocol.messages import SERVER_TYPES


def sent(frames: Iterable[WireMap]) -> list[Any]:
    """Models of what goes out. Fails where a map is not exactly what its model would be written as."""
    models = []
    for frame in frames:
        data = codec.encode(frame)
        model = codec.decode_server(data)
        assert list(frame) == list(SERVER_TYPES[frame["type"]].model_fields)
        assert codec.encode(model) == data
        models.append(model)
    return models


def once_over_the_wire(step: Step) -> Step:
    """A step as the server has it."""
    there = unpack(step.pack())
    assert isinstance(there, Step)
    return there
