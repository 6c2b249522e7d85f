"""The quick part of `bench.fuzz_starts`: whole `start` frames against the real engine."""

from __future__ import annotations

import random

import msgpack
import pytest

from bench.fuzz_starts import fuzz, start
from steersight.protocol.codec import FrameError, decode_client, decode_server
from steersight.ws.handshake import Offering

from .conftest import Server


@pytest.mark.engine
@pytest.mark.timeout(300)
async def test_no_start_frame_ends_the_engine_or_disturbs_a_neighbour(server: Server) -> None:
    seen, replies = await fuzz(server.address, 150, seed=7)
    assert seen.total() == 150
    assert replies > 0
    # Most frames reach the engine, and some are refused on the way to it.
    assert seen["ended by length"] > 30, seen
    assert seen["refused as invalid"] > 5, seen
    assert (server.engine.status.state, server.engine.restarts) == ("ready", 0)


@pytest.mark.engine
async def test_frames_are_what_the_protocol_takes_or_are_just_beyond(server: Server) -> None:
    told = decode_server(Offering(server.engine, server.table.limits, "test", "epoch").welcome())
    taken = 0
    for number in range(300):
        made = [msgpack.packb(start(random.Random(f"7 start {number}"), "f", told)) for _ in range(2)]
        assert made[0] == made[1]
        try:
            decode_client(made[0])
        except FrameError:
            continue
        taken += 1
    assert 150 < taken < 300
