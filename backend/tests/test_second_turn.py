"""What was read before is not read again, over the wire: reply and map are what they would have been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steersight.client import Client, connect
from steersight.protocol.messages import Sampling

from .conftest import Server

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

STORY = "Once there was a miller who had three sons and a donkey. " * 9
QUESTION = [{"role": "user", "content": f"{STORY}Tell me a long story of the miller."}]


async def ask(client: Client, messages: list[dict[str, str]], tokens: int = 8, **more: Any) -> Any:
    return await client.start(messages, sampling=Sampling(max_tokens=tokens, temperature=0.0), **more)


async def test_a_second_turn_is_complete_and_true(server: Server) -> None:
    """The first reply is steered from its middle on: what was computed so is not what the next turn reads."""
    async with connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        first = await ask(client, QUESTION, 60)
        rev = 0
        async for _ in first.texts():
            if len(first.ids) >= 20 and not rev:
                rev = await first.steer({"north": 0.3})
        await first.wait()
        steered_from = await first.applied(rev)
        more = [
            *QUESTION,
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": "And then?"},
        ]
        second = await ask(client, more)
        cached = (await second.wait()).usage.cached_tokens
        again = await ask(client, more, read_cache=False)
        assert (await again.wait()).usage.cached_tokens == 0
        # What the first turn has brought need not come once more.
        had = len(first.prompt.ids)
        later = await ask(client, more, read_cache=False, rows_from=had)
        await later.wait()
    assert 100 < cached <= steered_from, "what was steered was read, or nothing was"
    assert second.prompt.ids == again.prompt.ids
    assert second.ids == again.ids
    mine, theirs = second.rows(), again.rows()
    assert not np.isnan(mine[:-1]).any(), "the map has holes"
    np.testing.assert_allclose(mine[:-1], theirs[:-1], rtol=4e-3, atol=2e-4)
    assert np.isnan(later.rows()[:had]).all()
    np.testing.assert_allclose(later.rows()[had:-1], theirs[had:-1], rtol=4e-3, atol=2e-4)


async def test_who_asks_for_what_was_not_kept_is_told_and_can_have_it(server: Server) -> None:
    """Of a long prompt: who asks for a short one is better served by its rows than by the time they take."""
    messages = [{"role": "user", "content": f"Tale two. {STORY * 3}Who had a donkey?"}]
    async with connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        before = await ask(client, messages, 4, metrics=["residual_norm"])
        await before.wait()
        other = await ask(client, messages, 4, metrics=["residual_norm", "update_norm"])
        cached = (await other.wait()).usage.cached_tokens
        whole = await ask(client, messages, 4, metrics=["residual_norm", "update_norm"], read_cache=False)
        await whole.wait()
        # Now they are kept, and the next has them.
        last = await ask(client, messages, 4, metrics=["update_norm"])
        assert (await last.wait()).usage.cached_tokens == cached
    assert cached >= 300
    rows = other.rows()
    # The template's own beginning is everybody's, and may be kept.
    assert np.isnan(rows[64:cached]).all(), "rows that nobody has computed for it"
    assert not np.isnan(rows[cached:-1]).any()
    assert not np.isnan(whole.rows()[:-1]).any()
    np.testing.assert_allclose(last.rows()[:-1, 0], whole.rows()[:-1, 1], rtol=4e-3, atol=2e-4)


async def test_a_short_prompt_has_its_whole_map_whoever_has_asked_it_before(server: Server) -> None:
    messages = [{"role": "user", "content": f"Tale six. {STORY}Who had three sons?"}]
    async with connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        for metrics in ([], ["residual_norm"], ["residual_norm", "update_norm"]):
            run = await ask(client, messages, 4, metrics=metrics)
            await run.wait()
            assert not np.isnan(run.rows()[:-1]).any(), metrics
        # Whoever watches nothing has no map to be whole.
        run = await ask(client, messages, 4, metrics=[])
        assert (await run.wait()).usage.cached_tokens >= 100


async def test_steering_of_the_prompt_is_not_read_by_others(server: Server) -> None:
    messages = [{"role": "user", "content": f"Tale three. {STORY}Where was the donkey?"}]
    async with connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        seen = {}
        for name, how in {
            "steered": {"strengths": {"north": 0.3}},
            "plain": {},
            "reply only": {"strengths": {"north": 0.3}, "settings": {"north": {"scope": "reply"}}},
            "steered again": {"strengths": {"north": 0.3}},
            "computed": {"read_cache": False},
        }.items():
            run = await ask(client, messages, 6, **how)
            seen[name] = ((await run.wait()).usage.cached_tokens, run.ids, run.rows()[:-1])
    prompt = len(run.prompt.ids)
    assert seen["steered"][0] < 64, "a block of another's text was read"
    assert seen["plain"][0] < 64, "what was steered was read"
    assert seen["reply only"][0] >= 96, "who steers the reply only shares the prompt"
    assert seen["steered again"][0] >= 96
    assert seen["steered again"][1] == seen["steered"][1]
    assert seen["plain"][1] == seen["computed"][1]
    np.testing.assert_allclose(seen["plain"][2], seen["computed"][2], rtol=4e-3, atol=2e-4)
    np.testing.assert_allclose(
        seen["reply only"][2][: prompt - 1], seen["computed"][2][: prompt - 1], rtol=4e-3, atol=2e-4
    )
    np.testing.assert_allclose(seen["steered again"][2], seen["steered"][2], rtol=4e-3, atol=2e-4)


async def test_a_seed_holds_however_a_prompt_comes(server: Server) -> None:
    """In three pieces alone, in more among others. Of what is drawn behind a piece nothing may stay."""
    messages = [{"role": "user", "content": f"Tale four. {STORY * 5}What happened?"}]
    seeded = Sampling(max_tokens=12, temperature=0.9, seed=11)
    async with connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        alone = await client.start(messages, sampling=seeded, read_cache=False)
        await alone.wait()
        assert len(alone.prompt.ids) > 2 * 256
        others = [
            await ask(client, [{"role": "user", "content": f"Count to {n}."}], 60) for n in range(20, 26)
        ]
        for other in others:
            async for _ in other.texts():
                break
        among = await client.start(messages, sampling=seeded, read_cache=False)
        await among.wait()
        for other in others:
            await other.stop()
    assert among.ids == alone.ids
    assert not np.isnan(among.rows()[:-1]).any()
