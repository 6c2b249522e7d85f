"""What a checkpoint's files say before it is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from steersight.checkpoint import INDEX, Checkpoint, inspect

PARTS = {"a.safetensors": "embed", "b.safetensors": "head"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of 12 numbers each, with an index."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {name: file for file, name in PARTS.items()}}))
    for file, name in PARTS.items():
        save_file({name: torch.zeros(3, 4)}, tmp_path / file, metadata={"format": "pt"})
    return tmp_path


def sizeless(folder: Path) -> Checkpoint:
    """What is found, without the bytes of the weights."""
    return replace(inspect(folder), stored=0)


def test_a_whole_one(folder: Path) -> None:
    both = sum((folder / name).stat().st_size for name in PARTS)
    assert inspect(folder) == Checkpoint(parameters=24, stored=both, dtype="float32")


def test_without_an_index_every_file_counts(folder: Path) -> None:
    (folder / INDEX).unlink()
    (folder / "b.safetensors").unlink()
    assert sizeless(folder) == Checkpoint(parameters=12, dtype="float32")


def test_a_file_that_is_not_there(folder: Path) -> None:
    (folder / "b.safetensors").unlink()
    assert sizeless(folder) == Checkpoint(missing=("b.safetensors",), parameters=12, dtype="float32")


@pytest.mark.parametrize("left", [0, 7, 8, 40, -4])
def test_a_file_that_ends_too_soon(folder: Path, left: int) -> None:
    file = folder / "b.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    assert sizeless(folder) == Checkpoint(damaged=("b.safetensors",), parameters=12, dtype="float32")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            Checkpoint(quantised="gptq", parameters=24, dtype="float32"),
        ),
        ({"quantization_config": None}, Checkpoint(parameters=24, dtype="float32")),
        ({"vision_config": {}}, Checkpoint(senses=True, parameters=24, dtype="float32")),
    ],
)
def test_what_the_configuration_says(folder: Path, config: dict[str, Any], found: Checkpoint) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert sizeless(folder) == found


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[")
    (tmp_path / INDEX).write_text("[]")
    assert inspect(tmp_path) == Checkpoint()
