"""Checkpoints that are found on a machine, and the command that lists them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from steersight.models import command, here
from steersight.models.here import models_here

from .families import FAMILIES, make_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_checkpoint(FAMILIES["Llama"](), folder)
    return folder


@pytest.fixture
def data(tmp_path: Path, tiny: Path) -> Path:
    """A data folder with one model, and with what is none."""
    shutil.copytree(tiny, tmp_path / "data/models/tiny-llama")
    (tmp_path / "data/models/notes").mkdir()
    (tmp_path / "data/models/.half").mkdir()
    (tmp_path / "data/models/readme.txt").write_text("no folder")
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, in this process: huggingface_hub reads where it is at its import."""
    folder = tmp_path / "hf" / "hub"
    folder.mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(folder))
    return folder


def fetched(cache: Path, tiny: Path, name: str, revision: str = "a" * 40, main: bool = True) -> Path:
    """A model as `hf download` leaves it; returns its snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / revision
    blobs.mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    for file in tiny.iterdir():
        blob = blobs / f"{revision[0]}-{file.name}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    if main:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(revision)
    return snapshot


def test_what_is_in_the_data_folder(data: Path, cache: Path, tiny: Path) -> None:
    (one,) = models_here(data)
    assert (one.id, one.where, one.problem) == ("tiny-llama", here.DATA_FOLDER, "")
    assert one.size == sum(file.stat().st_size for file in tiny.iterdir())


def test_without_any(tmp_path: Path, cache: Path) -> None:
    shutil.rmtree(cache)
    assert models_here(tmp_path) == []


def test_of_the_cache_the_revision_that_a_name_means(data: Path, cache: Path, tiny: Path) -> None:
    meant = fetched(cache, tiny, "Org/Other")
    fetched(cache, tiny, "Org/Other", "b" * 40, main=False)
    newest = fetched(cache, tiny, "org/by-hash", main=False)
    found = {one.id: one for one in models_here(data)}
    assert list(found) == ["tiny-llama", "org/by-hash", "Org/Other"]
    assert found["Org/Other"].folder == meant
    assert found["org/by-hash"].folder == newest
    assert found["Org/Other"].where == here.CACHE
    assert found["Org/Other"].size == found["tiny-llama"].size


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("cut", "model.safetensors was not fetched to its end. Run `hf download org/name` again."),
        ("half", "Its weights are half downloaded"),
        ("none", "It has no weights"),
        ("pickled", "pickled"),
        ("index", "b.safetensors and 1 more of its files are missing"),
    ],
)
def test_weights_that_are_not_whole(cache: Path, tiny: Path, tmp_path: Path, change: str, word: str) -> None:
    snapshot = fetched(cache, tiny, "org/name")
    weights = snapshot / "model.safetensors"
    if change == "cut":
        blob = weights.resolve()
        blob.write_bytes(blob.read_bytes()[:-4])
    else:
        weights.unlink()
    if change == "half":
        (snapshot.parents[1] / "blobs" / "c0ffee.incomplete").write_bytes(b"half")
    if change == "pickled":
        (snapshot / "pytorch_model.bin").write_bytes(b"weights")
    if change == "index":
        parts = {"x": "b.safetensors", "y": "c.safetensors"}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    (one,) = models_here(tmp_path)
    assert word in one.problem


def test_what_writes_no_text_is_not_listed(cache: Path, tiny: Path, tmp_path: Path) -> None:
    snapshot = fetched(cache, tiny, "org/encoder")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_text('{"architectures": ["BertModel"]}')
    assert models_here(tmp_path) == []


def listed(data: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What the command says, as a process of its own."""
    code = (
        "import sys; from steersight.cli import main; status = main(sys.argv[1:])\n"
        "assert not {'torch', 'vllm', 'transformers', 'nnsight'} & set(sys.modules), 'heavy'\n"
        "sys.exit(status)"
    )
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, "models", "--data-dir", str(data), *words],
        env={"HF_HOME": str(home), "PATH": "/usr/bin:/bin", "HTTPS_PROXY": "http://127.0.0.1:9"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_is_quick_and_needs_neither_torch_nor_a_network(
    data: Path, tiny: Path, tmp_path: Path
) -> None:
    fetched(tmp_path / "home" / "hub", tiny, "org/name")
    began = time.process_time()
    done = listed(data, tmp_path / "home", "--json")
    assert done.returncode == 0, done.stderr
    assert time.process_time() - began < 2
    said: dict[str, Any] = json.loads(done.stdout)
    assert [one["id"] for one in said["here"]] == ["tiny-llama", "org/name"]
    first = said["here"][0]
    assert (first["fits"], first["problem"], first["layers"]) == (True, None, 4)
    assert first["serve"].endswith(f"steersight serve --model {data / 'models/tiny-llama'}")
    smallest = said["to_get"][0]
    assert smallest["get"].endswith("hf download HuggingFaceTB/SmolLM2-135M-Instruct")
    assert said["to_get"][-1]["gated"]
    assert said["to_get"][-1]["get"].endswith("Llama-3.3-70B-Instruct --exclude 'original/*'")


def test_the_command_says_it_in_words(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "models/tiny-llama", data / "models/smollm2-135m-instruct")
    (data / "models/tiny-llama/model.safetensors").unlink()
    done = listed(data, tmp_path / "home", "--kv-cache-gib", "3000")
    assert done.returncode == 0, done.stderr
    assert "does not fit. It has no weights. Fetch it again, whole." in done.stdout
    assert "of memory, and" in done.stdout
    # It is here already, under another name.
    assert "SmolLM2-135M" not in done.stdout
    wrong = listed(data, tmp_path, "--kv-cache-gib", "none")
    assert wrong.returncode == 2
    assert "'none' is not a whole number" in wrong.stderr


def test_what_hf_is_told_to_leave_out_is_an_option_that_it_has() -> None:
    helped = subprocess.run(  # noqa: S603
        [str(Path(sys.executable).with_name("hf")), "download", "--help"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "REPO_ID" in helped.stdout
    assert "--exclude" in helped.stdout
    assert command.getting(command.KNOWN[-1]).startswith(str(Path(sys.executable).with_name("hf")))
