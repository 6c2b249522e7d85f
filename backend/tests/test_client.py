"""The Python client and the terminal chat against the real server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import torch

from steersight.chat import Chat, converse
from steersight.client import SteersightError, connect
from steersight.protocol.messages import Sampling
from steersight.runs.run import Run

from .conftest import Server, demo_weights
from .reference import Reference

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
GREEDY = Sampling(max_tokens=40, temperature=0.0)


def url(server: Server) -> str:
    return f"ws://{server.address}/ws"


async def test_a_run_with_text_rows_and_live_steering(server: Server) -> None:
    async with connect(url(server)) as client:
        await client.ready()
        paris = [{"role": "user", "content": "Tell me about Paris."}]
        run = await client.start(paris, sampling=GREEDY, read_cache=False)
        rev = 0
        async for _ in run.texts():
            if len(run.ids) >= 8 and not rev:
                rev = await run.steer({"north": 0.3})
        position = await run.applied(rev)
        finished = await run.wait()
        assert run.text.startswith("Paris is a city")
        assert finished.usage.reply_tokens == len(run.ids) == 40
        rows = run.rows()
        assert rows.shape == (len(run.prompt.ids) + 40, 3, 30)
        assert not np.isnan(rows[:-1]).any()
        assert np.isnan(rows[-1]).all(), "the last token was never an input, so it has no row"
        assert rows[1:-1, 0].min() > 1, "norms come back in their own unit, not as logarithms"
        assert (run.revs[position - 1], run.revs[position]) == (0, 1)


async def test_runs_that_are_started_together_are_computed_together(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same steps from the first or second on, and each is what it is alone."""
    steps: dict[str, list[set[str]]] = {}
    take = Run._take

    def noted(run: Run, entry: Any) -> None:
        steps.setdefault(run.id, []).append(set(entry.step.runs))
        take(run, entry)

    monkeypatch.setattr(Run, "_take", noted)
    paris = [{"role": "user", "content": "Tell me about Paris, together."}]
    async with connect(url(server)) as client:
        await client.ready()
        plain, steered = await client.start_together(
            [
                {"messages": paris, "sampling": GREEDY},
                {"messages": paris, "sampling": GREEDY, "strengths": {"north": 0.3}},
            ]
        )
        await asyncio.gather(plain.wait(), steered.wait())
        alone = await client.start(paris, sampling=GREEDY)
        await alone.wait()
    assert plain.ids == alone.ids != steered.ids
    both = {plain.id, steered.id}
    apart = [sum(not both <= runs for runs in steps[run.id]) for run in (plain, steered)]
    assert max(apart) <= 1 + abs(len(plain.ids) - len(steered.ids)), apart


async def test_refusals_and_lost_connections_are_sentences(server: Server) -> None:
    async with connect(url(server)) as client:
        await client.ready()
        with pytest.raises(SteersightError, match="no vector 'nobody'"):
            await client.start([{"role": "user", "content": "hi"}], strengths={"nobody": 1.0})
    async with connect(url(server), patience=0) as client:
        run = await client.start([{"role": "user", "content": "Tell me a long story."}], sampling=GREEDY)
        client._socket.transport.abort()
        with pytest.raises(SteersightError, match="gone") as lost:
            await run.wait()
        assert lost.value.code == "disconnected"
    with pytest.raises(SteersightError, match="No Steersight server answers"):
        async with connect("ws://127.0.0.1:1/ws"):
            pass


async def test_a_refused_change_raises_where_it_is_waited_for(server: Server) -> None:
    async with connect(server.address) as client:
        await client.ready()
        run = await client.start([{"role": "user", "content": "Tell me a long story."}], sampling=GREEDY)
        with pytest.raises(SteersightError, match="nobody") as refused:
            await run.applied(await run.steer({"nobody": 0.1}))
        assert refused.value.code == "unknown_vector"
        assert await run.applied(await run.steer({"north": 0.1})) >= 0
        await run.stop()
        await run.wait()


class Screen:
    """What the chat wrote; a test waits for words to appear on it."""

    def __init__(self) -> None:
        self.text = ""
        self._changed = asyncio.Event()

    def write(self, text: str) -> None:
        self.text += text
        self._changed.set()

    async def until(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not ready():
                self._changed.clear()
                await self._changed.wait()


async def test_chat_steers_the_reply_that_is_being_written(server: Server) -> None:
    screen = Screen()
    async with connect(url(server)) as client:
        await client.ready()
        chat = Chat(client, screen.write)

        async def lines() -> AsyncIterator[str]:
            for line in ("/steer nort 0.2", "/steer north much", "/active", "/jump", "/vectors"):
                yield line
            yield "Write a long story about a dragon and a lighthouse."
            said = len(screen.text)
            await screen.until(lambda: len(screen.text) > said + 20)
            yield "/steer north 0.2"
            await screen.until(lambda: "in force" in screen.text)
            yield "/active"
            yield "/stop"

        await converse(chat, lines())
    assert "There is no vector 'nort'. Closest: north" in screen.text
    assert "'much' is not a number" in screen.text
    assert "No vector is active." in screen.text
    assert "/jump is not a command" in screen.text
    assert "east: layer 8, 20" in screen.text
    assert re.search(r"\[north 0\.2 in force at token \d+\]", screen.text)
    assert "\nnorth 0.2.\n" in screen.text
    assert screen.text.rstrip().endswith("[cancelled]")


async def test_chat_with_features_and_operators(server: Server) -> None:
    screen = Screen()
    async with connect(url(server)) as client:
        await client.ready()
        chat = Chat(client, screen.write)
        for line in ("/features", "/steer fires", "/steer north 1 ablate", "/active",
                     "/steer north 1 feature_set",
                     "/steer north 1e9"):  # fmt: skip
            await chat.command(line)
        assert "fires: feature, layer 14, add_absolute, -10 to 40. A random feature." in screen.text
        assert "\nfires 10, north 1 ablate.\n" in screen.text
        assert "north cannot do 'feature_set'; it can do add, add_absolute, ablate, clamp." in screen.text
        assert "between -1000 and 1000" in screen.text
        await chat.command("/clear")
        assert (chat.strengths, chat.settings) == ({}, {})


async def test_the_demo_of_nnsight_vllm_demos(server: Server, reference: Reference) -> None:
    """A catalogue of features, and its commands; what they do is what hooks in transformers do."""
    screen = Screen()
    columns = {layer: demo_weights(layer)["decoder.weight"][:, index] for layer, index in ((14, 41), (9, 7))}
    async with connect(url(server)) as client:
        await client.ready()
        chat = Chat(client, screen.write)
        for line in ("/features", "/steer 14:41 8", "/steer stage -6", "/active", "/steer 14:42 8"):
            await chat.command(line)
        assert "shakespeare: feature, layer 14:41, add_absolute, -15 to 15. Old words" in screen.text
        assert "\nshakespeare 8, stage -6.\n" in screen.text
        assert "The server has no feature 42 of layer 14." in screen.text
        sampling = Sampling(max_tokens=32, temperature=0.0)
        question = [{"role": "user", "content": "Tell me about Paris."}]
        steered = await client.start(question, strengths=chat.strengths, sampling=sampling)
        await steered.wait()
        await chat.command("/clear")
        plain = await client.start(question, strengths=chat.strengths, sampling=sampling)
        await plain.wait()
        await chat.command("/active")
    assert screen.text.endswith("No vector is active.\n")

    def push(layer: int, strength: float) -> Callable[..., Any]:
        def run(_module: Any, _args: Any, output: Any) -> Any:
            stream = output[0] if isinstance(output, tuple) else output
            stream[:, 1:] += strength * columns[layer]
            return output

        return run

    def best(ids: list[int]) -> list[int]:
        tokens = torch.tensor([ids])
        with torch.inference_mode():
            logits = reference.model(tokens, attention_mask=torch.ones_like(tokens)).logits[0]
        return logits.argmax(dim=-1).tolist()

    count = len(plain.prompt.ids)
    assert best(plain.prompt.ids + plain.ids)[count - 1 : -1] == plain.ids
    layers = reference.model.model.layers
    handles = [
        layers[14].register_forward_hook(push(14, 8.0)),
        layers[9].self_attn.register_forward_hook(push(9, -6.0)),
    ]
    try:
        assert best(steered.prompt.ids + steered.ids)[count - 1 : -1] == steered.ids
    finally:
        for handle in handles:
            handle.remove()
    assert steered.ids != plain.ids


async def test_the_command_itself_with_a_pipe(server: Server) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "steersight.cli", "chat", "--url", url(server),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(b"/help\nWhat is the capital of France?\n"), 90)
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        raise
    assert process.returncode == 0, err.decode()
    assert "/steer NAME STRENGTH" in out.decode()
    assert len(out.decode().splitlines()) > 8, "no reply came"
