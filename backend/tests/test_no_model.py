"""LoRA adapters and GGUF files that are named as the model are refused with a sentence, before any load."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersight.cli import main
from steersight.engine import loading
from steersight.engine.errors import StartError
from steersight.engine.options import EngineOptions
from steersight.no_model import why_no_model, why_no_model_on_hub

from .test_adapters import write


def test_an_adapter_is_none_and_its_base_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "poet", base_model_name_or_path="org/Base")
    sentence = (
        f"{folder} is a LoRA adapter, and no model. It was made for org/Base. Start with --model org/Base "
        f"--lora NAME={folder}."
    )
    assert main(["serve", "--model", str(folder), "--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip() == sentence
    # A folder of training often keeps the base model's configuration beside it.
    (folder / "config.json").write_text("{}")
    assert why_no_model(str(folder)) == sentence
    (folder / "model.safetensors").write_bytes(b"")
    assert why_no_model(str(folder)) is None
    (tmp_path / "nameless").mkdir()
    write(tmp_path / "nameless")
    assert "Start with --model BASE --lora NAME=" in str(why_no_model(str(tmp_path / "nameless")))


def test_gguf_files_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    for model, what in (
        (str(file), f"{file} is a GGUF file"), (str(tmp_path), "holds its weights as GGUF files only")
    ):  # fmt: skip
        assert main(["serve", "--model", model, "--data-dir", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert what in said
        assert "Name the checkpoint that it was made from" in said
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert why_no_model(str(tmp_path)) is None
    assert why_no_model("org/Name") is None


def test_repositories_of_the_hub_are_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = write(tmp_path / "poet", base_model_name_or_path="org/Base")
    files = {"org/Poet": ["adapter_config.json", "adapter_model.safetensors"], "org/Q": ["a.Q4.gguf", "x.md"]}

    def list_repo_files(_self: object, name: str) -> list[str]:
        return files[name]

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _name, file: str(folder / file))
    assert why_no_model_on_hub("org/Nowhere") is None
    assert "holds its weights as GGUF files only" in str(why_no_model_on_hub("org/Q"))
    why = (
        "org/Poet is a LoRA adapter, and no model. It was made for org/Base. Start with --model org/Base "
        "--lora NAME=FOLDER (fetched with `hf download org/Poet --local-dir FOLDER`)."
    )
    assert why_no_model_on_hub("org/Poet") == why

    import transformers

    def no_config(*_: object, **_more: object) -> None:
        raise OSError("org/Poet does not appear to have a file named config.json")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", no_config)
    with pytest.raises(StartError) as refused:
        loading.read_model(EngineOptions(model="org/Poet", data_dir=tmp_path), lambda _stage, _progress: None)
    assert str(refused.value) == why
