"""A model is called the same wherever its checkpoint comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steersight.cli import main
from steersight.engine.loading import read_model
from steersight.engine.options import EngineOptions
from steersight.naming import model_id, model_name
from steersight.vectors.store import SteeringVector, VectorStore, load_vector, save_vector

from .other_projects import HIDDEN, LAYERS

HASH = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


def snapshot(root: Path, repository: str) -> Path:
    """A checkpoint's folder as the hub's cache has it; config.json only."""
    folder = root / f"models--{repository.replace('/', '--')}" / "snapshots" / HASH
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": HIDDEN, "num_hidden_layers": LAYERS}))
    return folder


@pytest.mark.parametrize(
    ("model", "shown", "known"),
    [
        ("Org/Big-7B-Instruct", "Org/Big-7B-Instruct", "big-7b-instruct"),
        ("gpt2", "gpt2", "gpt2"),
        (f"/c/hub/models--org--Big-7B.v2/snapshots/{HASH}", "org/Big-7B.v2", "big-7b.v2"),
        (f"/c/hub/models--org--Big-7B/snapshots/{HASH}/", "org/Big-7B", "big-7b"),
        (f"models--gpt2/snapshots/{HASH}", "gpt2", "gpt2"),
        (f"C:\\hub\\models--org--Big\\snapshots\\{HASH}", "org/Big", "big"),
    ],
)  # fmt: skip
def test_names(model: str, shown: str, known: str) -> None:
    assert (model_id(model), model_name(model)) == (shown, known)


def test_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = snapshot(tmp_path, "org/Tiny")
    (tmp_path / "Mine").mkdir()
    (tmp_path / "link").symlink_to(folder)
    assert model_id(str(tmp_path / "Mine")) == "Mine"
    assert model_id(str(tmp_path / "link")) == "org/Tiny"
    monkeypatch.chdir(folder.parent)
    assert model_id(HASH) == "org/Tiny"
    monkeypatch.chdir(tmp_path / "Mine")
    assert model_name(".") == "mine"


def test_a_snapshot_is_offered_the_vectors_of_its_model(tmp_path: Path) -> None:
    vector = SteeringVector(
        id="joy", label="Joy", description="", layers=[1], directions=torch.ones(1, HIDDEN), range=(-1, 1),
        suggested=0.5, model="tiny", hidden_size=HIDDEN,
    )  # fmt: skip
    save_vector(vector, tmp_path / "bundled" / "tiny" / "joy.safetensors")
    store = VectorStore(None, bundled=tmp_path / "bundled")
    selection = store.select(str(snapshot(tmp_path, "org/Tiny")), HIDDEN, LAYERS)
    assert list(selection.vectors) == ["joy"], selection.problems


def test_a_vector_brought_for_a_snapshot_is_made_for_its_model(tmp_path: Path) -> None:
    model = snapshot(tmp_path, "org/Tiny")
    (tmp_path / "v.json").write_text(json.dumps({"layers": {"2": [1.0] * HIDDEN}}))
    places = ["--model", str(model), "--data-dir", str(tmp_path / "data")]
    assert main(["vectors", "import", str(tmp_path / "v.json"), *places]) == 0
    assert load_vector(tmp_path / "data" / "vectors" / "v.safetensors").model == "tiny"


def test_the_server_calls_a_snapshot_by_its_repository(tmp_path: Path, model_dir: str) -> None:
    """The bundled model in the layout of the hub's cache, with the vectors that are bound to its name."""
    folder = tmp_path / "models--HuggingFaceTB--SmolLM2-135M-Instruct" / "snapshots" / HASH
    folder.mkdir(parents=True)
    for file in Path(model_dir).iterdir():
        (folder / file.name).symlink_to(file)
    known = read_model(EngineOptions(model=str(folder), data_dir=tmp_path / "data"), lambda *_: None)
    assert known.model.id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "joy" in known.vectors.vectors
