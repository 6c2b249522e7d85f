"""A base model on the real engine: no chat template, and a token in its tokenizer that the model lacks.

Checkpoints like both are published. One message with such a token ended the engine for everybody.
"""

from __future__ import annotations

import pytest

from steersight.chat import Chat
from steersight.client import SteersightError, connect
from steersight.protocol.messages import Sampling
from steersight.text.rendering import UnknownTokenError

from .conftest import Server
from .odd import END, WITHOUT_ROW
from .wire import greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


def url(server: Server) -> str:
    return f"ws://{server.address}/ws"


async def test_a_text_is_continued(odd_server: Server) -> None:
    async with connect(url(odd_server)) as client:
        await client.ready()
        assert client.model is not None
        assert client.model.chat == "none"
        assert {0, 1, 2, END} <= client.special_ids
        run = await client.start([{"role": "user", "content": "Once upon"}], sampling=greedy(12))
        await run.wait()
        assert run.prompt.texts == ["<s>", *"Once upon"]
        assert len(run.ids) == 12
        # The reply's beginning is part of the text, and the same text goes on in the same way.
        half = "".join(run.pieces[:4])
        told = [{"role": "user", "content": "Once upon"}, {"role": "assistant", "content": half}]
        again = await client.start(told, sampling=greedy(8), write_on=bool(half.strip()))
        await again.wait()
        if "\ufffd" not in half and not set(run.ids[:4]) & client.special_ids:
            assert again.prompt.ids == [*run.prompt.ids, *run.ids[:4]]
            assert again.ids == run.ids[4:]


async def test_a_token_without_a_row_is_that_messages_error(odd_server: Server) -> None:
    engine = odd_server.engine
    async with connect(url(odd_server)) as client:
        await client.ready()
        neighbour = await client.start([{"role": "user", "content": "Tell"}], sampling=greedy(40))
        for told in (
            [{"role": "user", "content": "a <|extra|>"}],
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<|extra|>"}],
        ):
            with pytest.raises(SteersightError, match=r"'<\|extra\|>' \(260\)") as refused:
                await client.start(told, write_on=len(told) == 2)
            assert refused.value.code == "invalid"
        # The last look, for prompts that are made elsewhere.
        for ids in ([WITHOUT_ROW], [5, -1], [2**31]):
            with pytest.raises(UnknownTokenError):
                await engine.examples.take(ids)
        with pytest.raises(ValueError, match="no tokens"):
            await engine.examples.take([])
        assert (await neighbour.wait()).reason in ("length", "stop")
        assert (engine.status.state, engine.restarts) == ("ready", 0)


async def test_the_last_token_with_a_row_is_taken(odd_server: Server) -> None:
    async with connect(url(odd_server)) as client:
        await client.ready()
        sampling = Sampling(max_tokens=2, repetition_penalty=1.3)
        run = await client.start([{"role": "user", "content": "a<|end|>"}], sampling=sampling)
        assert run.prompt.ids[-1] == END
        assert (await run.wait()).error is None


async def test_the_terminal_says_that_it_continues_a_text(odd_server: Server) -> None:
    said: list[str] = []
    async with connect(url(odd_server)) as client:
        await client.ready()
        chat = Chat(client, said.append)
        assert "continues" in chat.greeting()
        await chat.say("Once")
    assert said
