"""Where vectors are kept: names that lead elsewhere, no room on the disk, none in the quota, two at once.

The engine is not there; what it would be asked is how many vectors there are, and to take one more.
"""

from __future__ import annotations

import asyncio
import errno
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save

from steersight import files
from steersight.api import answers
from steersight.api.vectors import MAX_UPLOADS, NoRoomError, VectorApi
from steersight.engine.offer import Offer
from steersight.engine.service import EngineOptions, EngineService, ModelFacts
from steersight.engine.status import EnginePhase, Status
from steersight.vectors.store import SteeringVector, VectorError

from .served import served

HIDDEN = 64


def vector(name: str, layers: int = 1) -> SteeringVector:
    return SteeringVector(
        id=name, label=name, description="", layers=list(range(layers)), model="any", hidden_size=HIDDEN,
        directions=torch.ones(layers, HIDDEN), range=(-1.0, 1.0), suggested=0.3,
    )  # fmt: skip


def api(folder: Path, quota: int = 1 << 30) -> VectorApi:
    engine = EngineService(EngineOptions(model="none", data_dir=folder.parent))
    return VectorApi(engine, folder, quota)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_a_file_that_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    """A write that the system cuts off in the middle: the file's size is limited for this process."""
    room = api(tmp_path / "vectors")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(NoRoomError, match="could not write it to its disk: File too large") as refused:
            await room.keep(vector("west", layers=100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "make room in its data folder" in str(refused.value)
    assert left(tmp_path) == []
    assert room.engine.offer.vectors == {}


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
    ],
)
async def test_a_disk_that_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: OSError, sentence: str
) -> None:
    def refuse(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(files.os, "replace", refuse)
    room = api(tmp_path / "vectors")
    with pytest.raises(NoRoomError, match=f"could not write it to its disk: {sentence}"):
        await room.keep(vector("west"))
    assert left(tmp_path) == []
    assert room.engine.offer.vectors == {}


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("This is a file.")
    with pytest.raises(NoRoomError, match="could not write it to its disk"):
        await api(tmp_path / "vectors").keep(vector("west"))


async def test_the_quota_counts_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    (folder / "old.safetensors").write_bytes(bytes(1 << 20))
    room = api(folder, quota=1 << 20)
    with pytest.raises(NoRoomError, match="This server keeps 1 MiB of vectors, and this would be more"):
        await room.keep(vector("west"))
    assert left(tmp_path) == ["old.safetensors"]


async def test_two_at_once_do_not_take_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = api(tmp_path / "vectors")

    async def add(self: Offer, one: SteeringVector, file: Path) -> None:
        await asyncio.sleep(0)
        self.vectors[one.id] = one
        self.files[one.id] = file

    monkeypatch.setattr(Offer, "add", add)
    kept = await asyncio.gather(*(room.keep(vector("west")) for _ in range(3)))
    assert [one.id for one in kept] == ["west", "west-2", "west-3"]
    assert left(tmp_path) == ["west-2.safetensors", "west-3.safetensors", "west.safetensors"]


async def test_what_the_engine_cannot_use_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise VectorError("It cannot.")

    monkeypatch.setattr(Offer, "add", refuse)
    with pytest.raises(VectorError, match=r"It cannot\."):
        await api(tmp_path / "vectors").keep(vector("west"))
    assert left(tmp_path) == []


async def test_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        served(tmp_path / "a" / "b" / "c", "--vector-quota-mib", "0") as (address, app),
        httpx.AsyncClient(base_url=f"http://{address}") as http,
    ):
        engine: EngineService = app.state.engine
        engine.status = Status(EnginePhase.READY)
        engine.model = ModelFacts("m", 12, HIDDEN, 10, "float32", 100, [])
        file = save({"layer_3": torch.ones(HIDDEN)})

        tried = await http.post("/api/vectors?name=../../../west.safetensors&try=1", content=file)
        assert tried.status_code == 200
        assert "/" not in tried.json()["vectors"][0]["id"]

        full = await http.post("/api/vectors?name=../../../west.safetensors", content=file)
        assert full.status_code == 507
        assert "This server keeps 0 MiB of vectors" in full.json()["error"]
        assert left(tmp_path) == ["index.html"]

        monkeypatch.setattr(answers, "BODY_SECONDS", 0.2)
        arrived = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield file[:10]
            arrived.set()
            await asyncio.sleep(1)

        late = asyncio.create_task(http.post("/api/vectors?name=x", content=slowly()))
        await arrived.wait()
        assert (await late).status_code == 408

        monkeypatch.setattr(answers, "BODY_SECONDS", 20)
        many = [asyncio.create_task(http.post("/api/vectors?name=x", content=slowly())) for _ in range(4)]
        await asyncio.sleep(0.3)
        busy = await http.post("/api/vectors?name=x&try=1", content=file)
        assert busy.status_code == 503
        assert f"{MAX_UPLOADS} files are on their way" in busy.json()["error"]
        assert {answer.status_code for answer in await asyncio.gather(*many)} == {422}
        assert (await http.post("/api/vectors?name=x&try=1", content=file)).status_code == 200
