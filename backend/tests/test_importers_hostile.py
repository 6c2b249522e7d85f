"""Damaged and hostile files: whatever the bytes, an importer reports or raises VectorError."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from steersight.vectors.importers import Choice, ImportReport, read_import
from steersight.vectors.store import VectorError, load_vector, save_vector

from .other_projects import HIDDEN, LAYERS
from .test_importers import as_json, control_file, direction, lens, own_file
from .test_importers_features import CATALOGUE, saelens_folder, scope_folder


def good_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        own = own_file(Path(folder))
        control = control_file(Path(folder, "x.gguf"), {1: direction(1).numpy(), 2: direction(2).numpy()})
    return {
        "own": own,
        "plain": save({"layer_1": direction(1), "layer_2": direction(2).bfloat16()}),
        "rows": save({"all": torch.stack([direction(n) for n in range(LAYERS)])}),
        "gguf": control,
        "lens": as_json([lens(), lens(norm_match=True)]),
        "hand": as_json({"layers": {"1": direction(1).tolist()}}),
    }


GOOD = good_files()


def survives(data: bytes | Path, choice: Choice | None = None) -> None:
    """It reports or raises VectorError, and what it reports can be saved and read again."""
    try:
        report: ImportReport = read_import(
            "x", data, model="tiny", hidden_size=HIDDEN, layers=LAYERS, choose=choice
        )
    except VectorError:
        return
    with tempfile.TemporaryDirectory() as folder:
        for vector in report.vectors:
            path = Path(folder, f"{vector.id}.safetensors")
            assert path.parent == Path(folder)
            save_vector(vector, path)
            load_vector(path)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with bytes changed, mostly in its header, and perhaps cut or lengthened."""
    data = bytearray(good)
    header = min(len(data), 400) - 1
    places = st.one_of(st.integers(0, header), st.integers(0, len(data) - 1))
    for at, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        data[at] = value
    if draw(st.booleans()):
        at = draw(places)
        data[at:at] = draw(st.binary(max_size=12))
    if draw(st.booleans()):
        del data[draw(places) :]
    return bytes(data)


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_damaged_files(kind: str) -> None:
    survives(GOOD[kind])

    @settings(max_examples=150, deadline=None)
    @given(damaged(GOOD[kind]))
    def check(data: bytes) -> None:
        survives(data)

    check()


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"GGUF\x03\x00\x00\x00", b"{", b"[", b"\x80\x04", b"PK\x03\x04"]),
)
def test_random_bytes(tail: bytes, head: bytes) -> None:
    survives(head + tail)


@pytest.mark.parametrize("project", ["saelens", "scope"])
@pytest.mark.parametrize("part", ["config", "weights"])
def test_damaged_folders(project: str, part: str, tmp_path: Path) -> None:
    if project == "saelens":
        folder = saelens_folder(tmp_path / "sae", "gated")
        path = folder / {"config": "cfg.json", "weights": "sae_weights.safetensors"}[part]
    else:
        folder = scope_folder(tmp_path)
        path = folder / {"config": "hyperparams.json", "weights": "checkpoints/final.safetensors"}[part]
    good = path.read_bytes()

    @settings(max_examples=100, deadline=None)
    @given(damaged(good))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        survives(folder, Choice(features=(3,)))

    check()


@settings(max_examples=100, deadline=None)
@given(damaged(as_json(CATALOGUE)))
def test_damaged_catalogues(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scope_folder(Path(folder), 3)
        survives(Path(folder), Choice(catalogue=data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(lens())), JSON)
def test_wrong_kinds_in_json(field: str, value: object) -> None:
    survives(as_json({**lens(), field: value}))
    survives(as_json({"layers": {"1": value}}))
    survives(as_json({"layers": value}))
    activations = lens()["activations"]
    for part in activations:
        survives(as_json({**lens(), "activations": {**activations, part: value}}))


CONFIG = [
    "d_in", "d_sae", "architecture", "metadata", "hook_name", "model_name", "d_model", "hook_point_in",
    "hook_point_out", "act_fn", "jump_relu_threshold", "dataset_average_activation_norm", "norm_activation",
    "normalize_activations", "activation_fn",
]  # fmt: skip


@pytest.mark.parametrize("project", ["saelens", "scope"])
def test_wrong_kinds_in_configurations(project: str, tmp_path: Path) -> None:
    if project == "saelens":
        folder = saelens_folder(tmp_path / "sae", "jumprelu", old=True)
        path = folder / "cfg.json"
    else:
        folder = scope_folder(tmp_path)
        path = folder / "hyperparams.json"
    good = json.loads(path.read_text())

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(CONFIG), JSON)
    def check(field: str, value: object) -> None:
        path.write_bytes(as_json({**good, field: value}))
        survives(folder, Choice(features=(3,)))

    check()
