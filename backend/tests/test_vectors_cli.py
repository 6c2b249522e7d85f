"""`steersight vectors`: what it saves, says and refuses. The model is a config.json alone: none is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steersight.cli import main
from steersight.vectors.cli import model_norm, model_shape
from steersight.vectors.store import VectorError, load_vector

from .other_projects import HIDDEN, LAYERS
from .test_importers import direction
from .test_importers_features import CATALOGUE, saelens_folder, scope_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a model that the environment names, and a file to bring."""
    model = tmp_path / "data" / "models" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"hidden_size": HIDDEN, "num_hidden_layers": LAYERS}))
    monkeypatch.setenv("STEERSIGHT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("STEERSIGHT_MODEL", str(model))
    save_file({"layer_2": direction(1), "step": torch.ones(1)}, tmp_path / "calm.safetensors")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = main(["vectors", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_vector_is_brought_listed_shown_and_handed_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "import", place / "calm.safetensors", "--label", "Calm")
    assert status == 0
    assert out.splitlines() == [
        "Plain safetensors:",
        "  One direction for layer 2, told from names such as 'layer_2'.",
        "  Strengths are relative to the stream's length, as for most vectors here.",
        "  Note: The tensor 'step' of shape [1] is no direction and was left out.",
        "Saved calm (Calm): add at layer 2, -0.5 to 0.5, try 0.2",
    ]
    saved = place / "data" / "vectors" / "calm.safetensors"
    assert load_vector(saved).model == "tiny"
    assert run(capsys, "list")[1] == "own      calm (Calm): add at layer 2, -0.5 to 0.5, try 0.2\n"
    status, out, _ = run(capsys, "show", saved)
    assert "Made for tiny, 32 numbers a token." in out
    assert '"imported_from": "Plain safetensors"' in out
    assert run(capsys, "export", "calm", "--to", place)[2].endswith(
        "is there already and was left as it is.\n"
    )
    assert run(capsys, "export", "calm", "--to", place / "mine.safetensors")[0] == 0
    assert (place / "mine.safetensors").read_bytes() == saved.read_bytes()


def test_trying_saves_nothing_and_an_id_is_never_taken_twice(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "import", place / "calm.safetensors", "--try")
    assert (status, out.splitlines()[-1][:16]) == (0, "Would save calm ")
    assert not (place / "data" / "vectors").exists()
    assert run(capsys, "import", place / "calm.safetensors")[0] == 0
    status, out, _ = run(capsys, "import", place / "calm.safetensors")
    assert (status, out.splitlines()[-1]) == (
        1, "Not saved: there is a vector 'calm' already. Choose another id with --name.",
    )  # fmt: skip
    assert run(capsys, "import", place / "calm.safetensors", "--name", "calmer")[0] == 0


def test_features_and_catalogues(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saelens_folder(place / "sae", "jumprelu")
    assert run(capsys, "import", folder, "--feature", "3", "4", "--feature", "5")[0] == 0
    assert {path.stem for path in (place / "data" / "vectors").iterdir()} == {"sae.3", "sae.4", "sae.5"}
    scope_folder(place / "scope", 3)
    (place / "features.json").write_text(json.dumps(CATALOGUE))
    status, out, _ = run(capsys, "import", place / "scope", "--catalogue", place / "features.json")
    assert status == 0
    assert "Saved shakespeare (shakespeare): add_absolute at layer 3, -15 to 15, try 8" in out
    assert "Note: drama: There is no autoencoder in a folder ...L2M-8x" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["import", "{place}/none"], "It cannot be read (No such file or directory)."),
        (["import", "{place}/calm.safetensors", "--model", "{place}/none"], "There is no model in "),
        (["import", "{place}/calm.safetensors", "--catalogue", "{place}/none"], "none cannot be read"),
        (["import", "{place}/v.pt"], "It is a pickle or an archive"),
        (["show", "{place}/v.pt"], "v.pt: Only .safetensors files are opened"),
        (["export", "none", "--to", "x"], "There is no vector 'none'"),
    ],
)
def test_refusals_are_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    torch.save({"v": torch.ones(HIDDEN)}, place / "v.pt")
    status, out, err = run(capsys, *(word.format(place=place) for word in words))
    assert (status, out) == (1, "")
    assert sentence in err


def test_a_shape_is_read_from_the_text_part_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"hidden_size": 8, "num_hidden_layers": 3}}')
    assert model_shape(str(tmp_path)) == (8, 3)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(VectorError, match="does not say hidden_size"):
        model_shape(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "shape", "norm"),
    [
        ({"n_embd": 8, "n_layer": 3, "layer_norm_epsilon": 1e-5}, (8, 3), "layer"),
        ({"hidden_size": 8, "num_hidden_layers": 3, "layer_norm_eps": 1e-5}, (8, 3), "layer"),
        ({"hidden_size": 8, "num_hidden_layers": 3, "rms_norm_eps": 1e-5}, (8, 3), "rms"),
        ({"hidden_size": 8, "num_hidden_layers": 3}, (8, 3), "unknown"),
    ],
    ids=["GPT-2", "NeoX", "Llama", "no word"],
)
def test_a_model_is_told_from_its_configuration(
    tmp_path: Path, config: dict[str, object], shape: tuple[int, int], norm: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (model_shape(str(tmp_path)), model_norm(str(tmp_path))) == (shape, norm)


def test_no_engine_is_loaded() -> None:
    """Neither vLLM nor torch for what needs none."""
    code = "import sys, steersight.cli; print([m for m in ('torch', 'vllm', 'nnsight') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"
