"""The model of a running server is changed: to one that does not start, which brings the old one back, and to
another. One server, whose engine is built four times."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import pytest_asyncio

from steersight.client import Client, SteersightError, connect
from steersight.engine.family import SHARED_MEMORY, shared_memory

from .conftest import Server, running
from .families import FAMILIES, make_checkpoint
from .reference import Reference
from .wire import greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

BUNDLED = "smollm2-135m-instruct"
NORM = "residual_norm"


@dataclass
class Changing:
    """A server whose model may be changed, and what it had when it came up."""

    server: Server
    models: Path
    before: set[psutil.Process]

    def api(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{self.server.address}", timeout=60)

    def engine_processes(self) -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process().children(recursive=True)
            if child not in self.before
            and child.status() != psutil.STATUS_ZOMBIE
            and "resource_tracker" not in " ".join(child.cmdline())
        ]

    def mapped(self) -> set[int]:
        """What its engine has in shared memory."""
        return set().union(*(shared_memory(process.pid) for process in self.engine_processes()))


def in_shared_memory() -> set[int]:
    return {file.stat().st_ino for file in Path(SHARED_MEMORY).iterdir()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def changing(model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Changing]:
    data = tmp_path_factory.mktemp("changing")
    models = data / "models"
    make_checkpoint(FAMILIES["Llama"](), models / "tiny")
    # Whole, as far as its files say, and read by transformers; only the engine does not know what it is.
    shutil.copytree(models / "tiny", models / "broken")
    config = json.loads((models / "broken/config.json").read_text())
    config["architectures"] = ["OddForCausalLM"]
    (models / "broken/config.json").write_text(json.dumps(config))
    shutil.copytree(models / "tiny", models / "cut")
    (models / "cut/model.safetensors").write_bytes(b"no weights")
    shutil.copytree(models / "tiny", models / "untold")
    for file in (models / "untold").glob("tokenizer*"):
        file.unlink()
    (models / BUNDLED).symlink_to(model_dir)
    before = set(psutil.Process().children(recursive=True))
    async with running(
        "--model", str(models / "tiny"), "--data-dir", str(data), "--ui", str(data / "no-page"),
        "--max-runs", "8", "--change-model",
    ) as server:  # fmt: skip
        yield Changing(server, models, before)


async def rows_are_those_of_transformers(client: Client, folder: Path) -> None:
    """One greedy reply of the model that is served, held against transformers."""
    run = await client.start(
        [{"role": "user", "content": "Tell me about Paris."}], sampling=greedy(12), metrics=[NORM],
        read_cache=False,
    )  # fmt: skip
    assert run.model == folder.name
    assert (await run.wait()).error is None
    ids = [*run.prompt.ids, *run.ids]
    reading = Reference(str(folder)).read(ids)
    assert set(reading.differing(ids, len(run.prompt.ids))) <= set(reading.ties(ids, len(run.prompt.ids)))
    expected = reading.residual_norm[: len(ids) - 1]
    rows = run.rows()[: len(ids) - 1, 0]
    assert rows.shape == expected.shape
    error = np.abs(rows - expected) / expected
    # Half floats of log2 on the wire.
    assert error.max() < 0.01


async def test_the_models_that_are_here(changing: Changing) -> None:
    async with changing.api() as api:
        told = (await api.get("/api/models")).json()
        assert told["served"] == "tiny"
        assert (told["live"], told["failed"]) == (0, None)
        found = {one["id"]: one for one in told["models"]}
        assert set(found) == {"tiny", "broken", "cut", "untold", BUNDLED}
        assert {name for name, one in found.items() if one["fits"]} == set(found) - {"cut"}
        assert "was not fetched to its end" in found["cut"]["why"]
        assert (found[BUNDLED]["layers"], found[BUNDLED]["parameters"]) == (30, 134_515_008)
        # Names of places are nobody's business.
        assert str(changing.models) not in str(told)


@pytest.mark.parametrize(
    ("asked", "status", "word"),
    [
        (b"[", 422, "not JSON"),
        (b'{"id": 3}', 422, "`id`"),
        (b'{"id": "tiny", "trust": true}', 422, "`id`"),
        (b'{"id": "../tiny"}', 404, "no such model"),
        (b'{"id": "HuggingFaceTB/SmolLM2-360M-Instruct"}', 404, "no such model"),
        (b'{"id": "cut"}', 409, "cut cannot be served here. model.safetensors was not fetched to its end."),
        (b'{"id": "untold"}', 409, "It cannot be served."),
        (b'{"id": "tiny"}', 409, "tiny is served already."),
    ],
)
async def test_what_is_refused_changes_nothing(
    changing: Changing, asked: bytes, status: int, word: str
) -> None:
    async with changing.api() as api, connect(f"ws://{changing.server.address}/ws") as client:
        await client.ready()
        run = await client.start([{"role": "user", "content": "a"}], sampling=greedy(4))
        answer = await api.post("/api/model", content=asked)
        assert answer.status_code == status, answer.text
        assert word in answer.json()["error"]
        assert (await run.wait()).error is None
        assert changing.server.engine.status.ready


async def test_a_model_that_does_not_start_brings_the_old_one_back(changing: Changing) -> None:
    engine = changing.server.engine
    first, held = changing.engine_processes(), changing.mapped()
    async with changing.api() as api, connect(f"ws://{changing.server.address}/ws") as client:
        await client.ready()
        await rows_are_those_of_transformers(client, changing.models / "tiny")
        live = await client.start([{"role": "user", "content": "a"}], sampling=greedy(200))
        assert await anext(live.texts()) is not None
        answer = await api.post("/api/model", json={"id": "broken"})
        assert (answer.status_code, answer.json()) == (202, {"model": "broken", "ended": 1})
        ended = await live.wait()
        assert ended.error is not None
        assert ended.error.code == "model_changed"
        assert "being changed to broken" in ended.error.message
        again = await api.post("/api/model", json={"id": BUNDLED})
        assert (again.status_code, again.json()["error"][:22]) == (409, "The engine is loading:")
        with pytest.raises(SteersightError, match="being changed to broken") as refused:
            await client.start([{"role": "user", "content": "a"}])
        assert refused.value.code == "engine_not_ready"
        await client.until(lambda: client.engine is not None and "served again" in client.engine.stage)
        assert client.engine is not None
        assert client.engine.state == "ready"
        assert client.engine.stage.startswith("broken could not be served.")
        assert client.engine.stage.endswith("tiny is served again.")
        assert (await api.get("/api/models")).json()["failed"] == engine.change_failed
        assert client.model is not None
        assert (client.model.id, client.reconnects, engine.restarts) == ("tiny", 0, 0)
        await rows_are_those_of_transformers(client, changing.models / "tiny")
    assert not any(process.is_running() for process in first)
    assert len(changing.engine_processes()) == 2
    assert not (held - changing.mapped()) & in_shared_memory()


async def test_another_model_with_its_own_vectors(changing: Changing) -> None:
    engine = changing.server.engine
    first, held = changing.engine_processes(), changing.mapped()
    async with changing.api() as api, connect(f"ws://{changing.server.address}/ws") as client:
        await client.ready()
        assert client.vectors == {}
        past = await client.start([{"role": "user", "content": "abc"}], sampling=greedy(4), metrics=[NORM])
        await past.wait()
        assert changing.server.table.kept.size > 0
        answer = await api.post("/api/model", json={"id": BUNDLED})
        assert (answer.status_code, answer.json()["ended"]) == (202, 0)
        await client.until(lambda: client.model is not None and client.model.id == BUNDLED)
        assert changing.server.table.kept.size == 0
        await client.ready()
        assert client.model is not None
        assert (client.model.layers, client.model.chat, engine.change_failed) == (30, "template", "")
        assert "joy" in client.vectors
        assert "projection:joy" in client.metrics
        assert (await api.get("/api/models")).json()["served"] == BUNDLED
        await rows_are_those_of_transformers(client, changing.models / BUNDLED)
        # What the other model wrote is as it was.
        assert past.rows().shape[2] == 4
        found = await client.watch(past.id)
        await found.wait()
        assert (found.model, found.ids) == ("tiny", past.ids)
    assert not any(process.is_running() for process in first)
    assert len(changing.engine_processes()) == 2
    assert not (held - changing.mapped()) & in_shared_memory()
    assert await engine.held() == dict.fromkeys(await engine.held(), 0)
