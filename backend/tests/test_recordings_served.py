"""Recordings of runs that the real engine writes: the server's and the client's are the same."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from steersight.client import connect
from steersight.protocol.messages import LensOptions
from steersight.recordings import read_recording, recording_bytes

from .conftest import Server
from .test_recordings import assert_same
from .wire import greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


async def test_a_steered_run_is_recorded_alike_by_server_and_client(server: Server) -> None:
    async with (
        httpx.AsyncClient(base_url=f"http://{server.address}", timeout=60) as api,
        connect(server.address) as client,
    ):
        await client.ready()
        question = [{"role": "user", "content": "Tell me about Paris."}]
        run = await client.start(
            question, sampling=greedy(24), lens=LensOptions(stride=10, top=3), entropy=True, alternatives=4
        )
        async for _ in run.texts():
            if len(run.ids) == 4:
                await run.steer({"pirate": 0.2})
                live = await api.get(f"/api/runs/{run.id}/recording")
                assert live.status_code == 200, live.text
            if len(run.ids) == 8:
                later = await run.watch(
                    metrics=["attention_norm"], lens=LensOptions(stride=15, top=2), alternatives=2
                )
        rev_1 = await run.applied(1)
        over = await api.get(f"/api/runs/{run.id}/recording")
        mine = run.recording()
    (theirs,) = read_recording(over.content).runs
    assert_same(read_recording(recording_bytes(mine)).runs[0], theirs)
    assert read_recording(over.content).turns == mine.turns
    first = read_recording(live.content).runs[0]
    assert 4 <= len(first.reply_texts) < 24
    assert first.info.finished is None
    columns = len(first.revisions)
    for name, rows in first.rows.items():
        assert rows.tobytes() == theirs.rows[name][:columns].tobytes()
    assert theirs.info.model is not None
    assert theirs.info.model.layers == 30
    assert [(one.rev, one.strengths) for one in theirs.info.revisions] == [(0, {}), (1, {"pirate": 0.2})]
    assert theirs.info.revisions[1].position == rev_1
    assert (theirs.revisions[rev_1 - 1], theirs.revisions[rev_1]) == (0, 1)
    assert [one.from_ for one in theirs.info.watched] == [0, later]
    assert theirs.info.metrics[-1].id == "attention_norm"
    assert np.isnan(theirs.rows["attention_norm"][:later]).all()
    assert not np.isnan(theirs.rows["attention_norm"][later:]).any()
    assert np.isnan(theirs.rows["residual_norm"][later:]).all()
    assert theirs.entropy is not None
    reply = theirs.info.prompt.tokens
    assert np.isnan(theirs.entropy[reply:]).tolist() == [at >= later for at in range(reply, reply + 23)]
    assert theirs.lens is not None
    assert theirs.lens.layers.tolist() == [9, 14, 19, 29]
    assert theirs.lens.ids.shape[2] == 3
    assert theirs.alternatives is not None
    assert theirs.alternatives.ids[0, 0] == theirs.tokens[theirs.info.prompt.tokens]
    assert np.allclose(theirs.alternatives.logprobs[0, 0], theirs.logprobs[0], atol=1e-5)
