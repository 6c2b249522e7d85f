"""Vectors over HTTP, on the running engine."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save

from steersight.client import connect
from steersight.engine import sending
from steersight.engine.arrivals import pieces
from steersight.vectors.action import Action
from steersight.vectors.store import SteeringVector, load_vector

from .conftest import HIDDEN, Server
from .reference import Reference
from .test_engine_truth import Collected, directions
from .wire import greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def http(server: Server, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{server.address}", headers=headers, timeout=30)


def plain_file(seed: int = 3) -> bytes:
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(seed))
    return save({"layer_11": direction})


async def test_bring_use_fetch_and_delete(server: Server, reference: Reference, tmp_path: Path) -> None:
    text = "Tell me about Paris."
    async with http(server) as api, connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        before = set(client.vectors)
        tried = await api.post("/api/vectors?name=west.safetensors&try=1", content=plain_file())
        assert tried.status_code == 200, tried.text
        assert [info["layers"] for info in tried.json()["vectors"]] == [[11]]
        assert set(server.engine.offer.sliders) == before, "a try has changed something"

        # A reply that is being written goes on as it would have.
        neighbour = asyncio.create_task(Collected(server, text).run("neighbour", {}, tokens=48))
        kept = await api.post("/api/vectors?name=west.safetensors&label=West", content=plain_file())
        assert kept.status_code == 200, kept.text
        (info,) = kept.json()["vectors"]
        assert (info["id"], info["label"], info["own"]) == ("west", "West", True)
        await client.until(lambda: "west" in client.vectors)
        assert "projection:west" in client.metrics

        again = await api.post("/api/vectors?name=west.safetensors", content=plain_file(4))
        assert [v["id"] for v in again.json()["vectors"]] == ["west-2"]

        steered = await Collected(server, text).run("west", {"west": 0.3}, tokens=32)
        push = directions(server, {"west": 0.3})
        reading = reference.read(steered.ids, lambda _position: push)
        assert reading.differing(steered.ids, len(steered.prompt)) == []
        projected = await Collected(server, text).act("p", [Action("west", 0.3)], 8, ["projection:west"])
        assert projected.rows()[1:, 0, 11].min() > 0.2
        plain = await neighbour
        assert reference.read(plain.ids).differing(plain.ids, len(plain.prompt)) == []

        fetched = tmp_path / "west.safetensors"
        fetched.write_bytes((await api.get("/api/vectors/west/file")).content)
        assert torch.allclose(load_vector(fetched).directions, server.engine.offer.vectors["west"].directions)
        card = (await api.get("/api/vectors/west")).json()
        assert card["file_bytes"] == fetched.stat().st_size

        run = await client.start(
            [{"role": "user", "content": text}], strengths={"west": 0.1}, sampling=greedy(200)
        )
        refused = await api.delete("/api/vectors/west")
        assert refused.status_code == 409
        assert "is steering a reply" in refused.json()["error"]
        await run.stop()
        await run.wait()
        watching = await client.start(
            [{"role": "user", "content": text}], metrics=["projection:west"], sampling=greedy(200)
        )
        refused = await api.delete("/api/vectors/west")
        assert refused.status_code == 409
        assert "The projection on West is watched in a reply" in refused.json()["error"]
        assert "west" in server.engine.offer.vectors
        await watching.stop()
        await watching.wait()
        assert (await api.delete("/api/vectors/west")).status_code == 204
        assert (await api.delete("/api/vectors/west-2")).status_code == 204
        await client.until(lambda: set(client.vectors) == before)
        assert "projection:west" not in client.metrics
        assert not list(server.engine.options.data_dir.glob("vectors/west*"))


async def test_a_vector_whose_file_cannot_be_deleted_stays(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a read-only folder; tests run as root too, so the system's answer is planted."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with http(server) as api:
        assert (await api.post("/api/vectors?name=stay.safetensors", content=plain_file(5))).is_success
        path = server.engine.offer.files["stay"]
        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", refuse)
            answer = await api.delete("/api/vectors/stay")
        assert answer.status_code == 507
        assert "could not delete the file of stay: Read-only file system. Whoever" in answer.json()["error"]
        assert path.is_file()
        assert "stay" in server.engine.offer.vectors
        path.unlink()
        answer = await api.get("/api/vectors/stay/file")
        assert (answer.status_code, "is gone" in answer.json()["error"]) == (410, True)
        assert (await api.get("/api/vectors/stay")).status_code == 410
        assert (await api.delete("/api/vectors/stay")).status_code == 204
        assert "stay" not in server.engine.offer.vectors


async def test_what_is_refused(server: Server) -> None:
    async with http(server) as api:
        for name, data, sentence in (
            ("x.safetensors", b"nonsense", ""),
            ("x.pt", b"PK\x03\x04 archive/data.pkl", "pickle"),
            ("../../x.safetensors", save({"layer_3": torch.ones(7)}), "7"),
        ):
            answer = await api.post(f"/api/vectors?name={name}", content=data)
            assert answer.status_code == 422, name
            assert sentence in answer.json()["error"].lower()
        assert (await api.get("/api/vectors/nobody")).status_code == 404
        assert (await api.post("/api/vectors?name=x", content=b"0" * (65 << 20))).status_code == 413
        lone = save({"direction": torch.ones(HIDDEN)})
        answer = await api.post("/api/vectors?name=x.safetensors&layer=four", content=lone)
        assert "'four' is not the number of a layer" in answer.json()["error"]
        answer = await api.post("/api/vectors?name=x.safetensors&layer=4&try=1", content=lone)
        assert answer.json()["vectors"][0]["layers"] == [4]
        names = [path.name for path in server.engine.options.data_dir.rglob("x*")]
        assert names == []
    async with http(server, Origin="http://elsewhere.example") as foreign:
        assert (await foreign.post("/api/vectors?name=x", content=plain_file())).status_code == 403
        assert (await foreign.delete("/api/vectors/north")).status_code == 403
        assert "north" in server.engine.offer.vectors


async def test_a_vector_of_64_mib_comes_beside_a_reply(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its own bytes are sent, made in threads; how long the event loop was away is printed."""
    engine = server.engine
    rows = (64 << 20) // (4 * HIDDEN)
    directions = torch.randn(30, HIDDEN).repeat(rows // 30 + 1, 1)[:rows]
    large = SteeringVector(
        id="large", label="large", description="", layers=list(range(rows)), directions=directions,
        range=(-1.0, 1.0), suggested=0.3, model="any", hidden_size=HIDDEN,
    )  # fmt: skip
    sent: list[int] = []
    threads: set[int] = set()

    def noted(vector: SteeringVector) -> Iterator[bytes]:
        for piece in pieces(vector):
            threads.add(threading.get_ident())
            sent.append(len(piece))
            yield piece

    monkeypatch.setattr(sending, "pieces", noted)
    gaps = [0.0]

    async def tick() -> None:
        then = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - then)
            then = time.perf_counter()

    neighbour = asyncio.create_task(Collected(server, "Tell me about Paris.").run("beside", {}, tokens=48))
    ticking = asyncio.create_task(tick())
    await engine.offer.add(large, server.engine.options.data_dir / "large.safetensors")
    ticking.cancel()
    with capsys.disabled():
        print(f"64 MiB in {len(sent)} pieces; the event loop was away {max(gaps) * 1e3:.0f} ms at most")  # noqa: T201
    assert threading.get_ident() not in threads
    assert max(sent) < 5 << 20
    assert 64 << 20 <= sum(sent) < 65 << 20
    assert "large" in engine.offer.vectors
    beside = await neighbour
    await engine.offer.remove("large")
    plain = await Collected(server, "Tell me about Paris.").run("alone", {}, tokens=48)
    assert beside.reply == plain.reply
