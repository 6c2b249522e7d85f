"""A base model on the real engine: no chat template, and a token in its tokenizer that the model lacks.

Checkpoints like both are published. One message with such a token ended the engine for everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import transformers
import uvicorn
from tokenizers import AddedToken

from steersight.app import create_app
from steersight.chat import Chat
from steersight.client import SteersightError, connect
from steersight.engine.service import EngineService
from steersight.protocol.messages import Sampling
from steersight.serving import configured
from steersight.text.rendering import UnknownTokenError

from .families import HIDDEN, LAYERS, make_checkpoint
from .settings import settings
from .tokenizers_made import byte_level
from .wire import greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
END, WITHOUT_ROW = 259, 260
ROWS = 260


def checkpoint(folder: Path) -> str:
    """A random GPT-2 with 260 rows, and a tokenizer with 261 tokens."""
    config = transformers.GPT2Config(
        n_embd=HIDDEN, n_layer=LAYERS, n_head=4, n_positions=256, vocab_size=ROWS, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    make_checkpoint(config, folder)
    added = [AddedToken("<|end|>", special=True), AddedToken("<|extra|>", special=True)]
    byte_level(added, bos=True).save_pretrained(folder)
    return str(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, EngineService]]:
    """Address of a server that serves it."""
    folder = tmp_path_factory.mktemp("base")
    model = checkpoint(folder / "model")
    app = create_app(settings("--model", model, "--data-dir", str(folder), "--ui", str(folder / "no-page")))
    running = uvicorn.Server(configured(app, "127.0.0.1", 0))
    task = asyncio.create_task(running.serve())
    engine: EngineService = app.state.engine
    changed = asyncio.Event()
    unlisten = engine.listen(changed.set)
    async with asyncio.timeout(300):
        while engine.status.state == "loading":
            await changed.wait()
            changed.clear()
    unlisten()
    assert engine.status.state == "ready", engine.status.stage
    yield f"ws://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/ws", engine
    running.should_exit = True
    await task


async def test_a_text_is_continued(served: tuple[str, EngineService]) -> None:
    async with connect(served[0]) as client:
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


async def test_a_token_without_a_row_is_that_messages_error(served: tuple[str, EngineService]) -> None:
    address, engine = served
    async with connect(address) as client:
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
                await engine.stream_mean(ids)
        with pytest.raises(ValueError, match="no tokens"):
            await engine.stream_mean([])
        assert (await neighbour.wait()).reason in ("length", "stop")
        assert (engine.status.state, engine.restarts) == ("ready", 0)


async def test_the_last_token_with_a_row_is_taken(served: tuple[str, EngineService]) -> None:
    async with connect(served[0]) as client:
        await client.ready()
        sampling = Sampling(max_tokens=2, repetition_penalty=1.3)
        run = await client.start([{"role": "user", "content": "a<|end|>"}], sampling=sampling)
        assert run.prompt.ids[-1] == END
        assert (await run.wait()).error is None


async def test_the_terminal_says_that_it_continues_a_text(served: tuple[str, EngineService]) -> None:
    said: list[str] = []
    async with connect(served[0]) as client:
        await client.ready()
        chat = Chat(client, said.append)
        assert "continues" in chat.greeting()
        await chat.say("Once")
    assert said
