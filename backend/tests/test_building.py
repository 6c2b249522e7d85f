"""A vector built by the running engine, over HTTP, while somebody else chats."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml

from steersight.cli import main as cli
from steersight.client import connect

from .conftest import Server
from .reference import Reference
from .test_engine_truth import Collected
from .wire import greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
WISH = {
    "label": "Test joy",
    "positive": "You are overjoyed, delighted and full of enthusiasm. Answer with joy and excitement.",
    "negative": "You are miserable, gloomy and full of sorrow. Answer with sadness and despair.",
    "topics": ["Tell me about the sea.", "What did you do this morning?", "Tell me about dogs."],
}


def http(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{server.address}", timeout=60)


@torch.inference_mode()
def mean_stream(reference: Reference, ids: list[int], first: int, end: int) -> torch.Tensor:
    """[layers, hidden_size] mean over positions first to end - 1, in transformers."""
    kept: list[torch.Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _m, _a, output: kept.append(output[0].double()))
        for layer in reference.model.model.layers
    ]
    try:
        tokens = torch.tensor([ids])
        reference.model(tokens, attention_mask=torch.ones_like(tokens))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([stream[first:end].mean(dim=0) for stream in kept])


async def test_stream_means_equal_transformers(server: Server, reference: Reference) -> None:
    text = "Tell me about Paris."
    prompt = Collected(server, text).prompt
    reply, whole = await asyncio.gather(
        server.engine.examples.take(prompt, reply_tokens=24),
        server.engine.examples.take(prompt, first=0, surprisal=True),
    )
    ids = prompt + reply.reply
    assert reply.tokens == len(reply.reply) - 1
    expected = mean_stream(reference, ids, len(prompt), len(ids) - 1)
    assert float(((reply.mean - expected).norm(dim=-1) / expected.norm(dim=-1)).max()) < 1e-4
    # All of the prompt but the first position, the attention sink.
    assert whole.tokens == len(prompt) - 1
    expected = mean_stream(reference, prompt, 1, len(prompt))
    assert float(((whole.mean - expected).norm(dim=-1) / expected.norm(dim=-1)).max()) < 1e-4
    with torch.inference_mode():
        logits = reference.model(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt))).logits[0]
    nats = -logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(prompt[1:])[:, None]).mean()
    assert whole.surprisal == pytest.approx(float(nats), rel=1e-3)
    assert (await server.engine.held())["observer"] == 0


async def finished(api: httpx.AsyncClient, job: str) -> dict[str, Any]:
    seen = []
    async with asyncio.timeout(200):
        while True:
            state = (await api.get(f"/api/vectors/build/{job}")).json()
            seen.append(state["progress"])
            if state["state"] != "running":
                assert seen == sorted(seen), "progress went back"
                return dict(state)
            # What is waited for is the state; the server has no other way to tell it.
            await asyncio.sleep(0.2)


async def test_build_use_and_delete_while_somebody_chats(server: Server, reference: Reference) -> None:
    async with http(server) as api, connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        neighbour = asyncio.create_task(Collected(server, "Tell me about Paris.").run("chat", {}, tokens=64))
        started = await api.post("/api/vectors/build", json=WISH)
        assert started.status_code == 202, started.text
        second = await api.post("/api/vectors/build", json=WISH)
        assert second.status_code == 409
        assert "Another vector is being built" in second.json()["error"]
        state = await finished(api, started.json()["job"])
        assert state["state"] == "done", state
        result = state["result"]
        assert len(result["separation"]) == 30
        assert {point["strength"] > 0 for point in result["sweep"]} == {True, False}
        assert result["range"][0] < 0 < result["suggested"] <= result["range"][1]

        await client.until(lambda: "test-joy" in client.vectors)
        strengths = {"test-joy": result["suggested"]}
        question = [{"role": "user", "content": "Tell me about Paris."}]
        run = await client.start(question, strengths=strengths, sampling=greedy(32), metrics=[])
        await run.wait()
        vector = server.engine.offer.vectors["test-joy"]
        push = [(vector.layers[0], vector.directions[0], result["suggested"])]
        ids = run.prompt.ids + run.ids
        assert reference.read(ids, lambda _p: push).differing(ids, len(run.prompt.ids)) == []

        plain = await neighbour
        assert reference.read(plain.ids).differing(plain.ids, len(plain.prompt)) == [], (
            "the chat was disturbed"
        )
        assert run.ids != plain.reply[: len(run.ids)]
        card = (await api.get("/api/vectors/test-joy")).json()
        assert card["provenance"]["positive"] == WISH["positive"]
        assert set(card["provenance"]["versions"]) == {
            "steersight",
            "nnsight",
            "vllm",
            "torch",
            "transformers",
        }
        assert (await api.delete("/api/vectors/test-joy")).status_code == 204
        held = await server.engine.held()
        assert (held["vllm"], held["nnsight"], held["observer"]) == (0, 0, 0)


async def test_a_build_computes_no_more_at_once_than_the_server_may(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chat and a build share two places; the chat goes on, and the build with one request at a time."""
    monkeypatch.setattr(server.table, "limits", replace(server.table.limits, max_runs=2))
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(server.engine.generations))

    monkeypatch.setattr(server.engine, "on_step", look)
    texts = {"label": "Few", "positive": ["I love it!", "How lovely."], "negative": ["I hate it.", "Awful."]}
    async with http(server) as api, connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        question = [{"role": "user", "content": "Write a long story about a dragon."}]
        run = await client.start(question, sampling=greedy(400), metrics=[])
        job = (await api.post("/api/vectors/build", json=texts)).json()["job"]
        assert (await finished(api, job))["state"] == "done"
        assert run.finished is None or run.finished.reason == "length"
        await run.stop()
        await run.wait()
        assert (await api.delete("/api/vectors/few")).status_code == 204
    assert most == 2
    assert (server.table.places.held, server.table.places.tokens) == (0, 0)


async def test_cancel_leaves_nothing_behind(server: Server) -> None:
    before = set(server.engine.offer.vectors)
    async with http(server) as api:
        job = (await api.post("/api/vectors/build", json=WISH)).json()["job"]
        async with asyncio.timeout(60):
            while (await api.get(f"/api/vectors/build/{job}")).json()["progress"] < 0.1:  # noqa: ASYNC110 - the state is on the server
                await asyncio.sleep(0.05)
        assert (await api.delete(f"/api/vectors/build/{job}")).status_code == 204
        assert (await api.get(f"/api/vectors/build/{job}")).json()["state"] == "cancelled"
        assert (await api.get("/api/vectors/build/nobody")).status_code == 404
    assert set(server.engine.offer.vectors) == before
    held = await server.engine.held()
    assert (held["vllm"], held["nnsight"], held["observer"]) == (0, 0, 0)


async def test_example_texts_and_wishes_that_make_no_sense(server: Server) -> None:
    async with http(server) as api:
        texts = {
            "label": "Texts",
            "positive": ["I love it!", "How lovely."],
            "negative": ["I hate it.", "How awful."],
        }
        job = (await api.post("/api/vectors/build", json=texts)).json()["job"]
        assert (await finished(api, job))["state"] == "done"
        assert (await api.delete("/api/vectors/texts")).status_code == 204
        for wish, sentence in (
            ({}, "`label` must be a text"),
            ({"label": "x"}, "`positive` is missing"),
            ({"label": "", "positive": "a", "negative": "b"}, "needs a name"),
            ({**WISH, "positive": 3}, "`positive` is missing, or neither"),
            ({**WISH, "more": 1}, "built from `label`"),
            ([], "built from `label`"),
        ):
            answer = await api.post("/api/vectors/build", json=wish)
            assert answer.status_code == 422, wish
            assert sentence in answer.json()["error"]
        assert (await api.post("/api/vectors/build", content=b"{")).status_code == 422


async def test_the_command_line(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "joy.yaml"
    recipe.write_text(yaml.safe_dump({**WISH, "label": "From a file", "layer": 20}))
    url = f"http://{server.address}"
    assert await asyncio.to_thread(cli, ["vectors", "build", str(recipe), "--url", url]) == 0
    said = capsys.readouterr().out
    assert "The model replies in both ways" in said
    assert "from-a-file: layer " in said
    assert (server.engine.options.data_dir / "vectors" / "from-a-file.safetensors").is_file()
    async with http(server) as api:
        assert (await api.delete("/api/vectors/from-a-file")).status_code == 204
    recipe.write_text("label: [")
    assert await asyncio.to_thread(cli, ["vectors", "build", str(recipe), "--url", url]) == 1
    assert "cannot be read" in capsys.readouterr().err
    recipe.write_text("label: x")
    assert await asyncio.to_thread(cli, ["vectors", "build", str(recipe), "--url", url]) == 1
    assert "`positive` is missing" in capsys.readouterr().err
    assert await asyncio.to_thread(cli, ["vectors", "build", str(recipe), "--url", "http://127.0.0.1:1"]) == 1
    assert "There is no server at" in capsys.readouterr().err
