"""Gemma Scope 1 and 2, in folders as the hub has them, against the formula that their makers publish.

f = u where u > threshold, else 0, with u = x W_enc + b_enc; x is made up of f W_dec + b_dec
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steersight.vectors.importers import Choice, ImportReport, read_import
from steersight.vectors.store import VectorError

from .other_projects import HIDDEN, LAYERS, logits, steered, tiny
from .test_importers_features import FEATURES, bring, full, random, read, refused, stream

__all__ = ["tiny"]  # a fixture

Weights = dict[str, torch.Tensor]


def weights() -> Weights:
    return {
        "W_enc": random(HIDDEN, FEATURES, seed=1, scale=0.3),
        "W_dec": random(FEATURES, HIDDEN, seed=2),
        "b_enc": random(FEATURES, seed=3),
        "b_dec": random(HIDDEN, seed=4),
        "threshold": random(FEATURES, seed=5).abs() * 2,
    }


def first(root: Path, layer: str = "layer_2", repository: str = "gemma-scope-2b-pt-res") -> Path:
    folder = root / repository / layer / "width_16k" / "average_l0_71"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in weights().items()})
    return folder


def second(root: Path, **fields: Any) -> Path:
    folder = root / "resid_post" / "layer_2_width_16k_l0_medium"
    folder.mkdir(parents=True)
    hook = fields.pop("hook", "model.layers.2.output")
    config = {
        "hf_hook_point_in": hook, "hf_hook_point_out": hook, "width": FEATURES, "l0": 60, "type": "sae",
        "model_name": "google/gemma-3-1b-it", "architecture": "jump_relu", "affine_connection": False,
        **fields,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name.lower(): tensor for name, tensor in weights().items()}, folder / "params.safetensors")
    return folder


def encode(w: Weights, x: torch.Tensor) -> torch.Tensor:
    u = x @ w["W_enc"] + w["b_enc"]
    return torch.where(u > w["threshold"], u, torch.zeros(())).clamp_min(0)


@pytest.mark.parametrize("make", [first, second])
def test_a_feature_reads_and_edits_as_its_autoencoder(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    report = bring(make(tmp_path), 7, 31)
    x, w = stream(), weights()
    acts = encode(w, x)
    assert [vector.layers for vector in report.vectors] == [[2], [2]]
    for vector, index in zip(report.vectors, (7, 31), strict=True):
        assert vector.reader is not None
        f = read(vector.reader, x)
        assert 0 < (f > 0).float().mean() < 1
        torch.testing.assert_close(f, acts[:, index], atol=1e-4, rtol=1e-4)
        edited = acts.clone()
        edited[:, index] = 5.0
        error = x - (acts @ w["W_dec"] + w["b_dec"])
        theirs = edited @ w["W_dec"] + w["b_dec"] + error
        torch.testing.assert_close(x + (5.0 - f)[:, None] * full(vector), theirs, atol=1e-3, rtol=1e-4)


def test_what_the_report_says(tmp_path: Path) -> None:
    report = bring(first(tmp_path), 7)
    assert report.format == "Gemma Scope"
    assert report.found == ["A JumpReLU autoencoder of 40 features of the stream after layer 2."]
    (vector,) = report.vectors
    assert (vector.id, vector.kind, vector.operator) == (
        "layer_2-width_16k-average_l0_71.7",
        "feature",
        "add",
    )
    report = bring(second(tmp_path), 7)
    assert report.found[0].endswith("after layer 2, made for 'google/gemma-3-1b-it'.")
    assert report.vectors[0].id == "layer_2_width_16k_l0_medium.7"


def test_the_file_itself_may_be_named(tmp_path: Path) -> None:
    for file in (first(tmp_path) / "params.npz", second(tmp_path) / "params.safetensors"):
        assert bring(file, 3).vectors[0].layers == [2]


def test_a_feature_is_added_where_it_was_trained(tiny: Any, tmp_path: Path) -> None:
    (vector,) = bring(first(tmp_path), 5).vectors
    push = weights()["W_dec"][5]
    handle = tiny.model.layers[2].register_forward_hook(
        lambda _m, _i, out: (out[0] + 3 * push, *out[1:]) if isinstance(out, tuple) else out + 3 * push
    )
    theirs = logits(tiny)
    handle.remove()
    absolute = replace(vector, directions=full(vector)[None], operator="add_absolute")
    torch.testing.assert_close(steered(tiny, absolute, 3.0), theirs, atol=1e-5, rtol=1e-5)


def test_what_the_folders_leave_open(tmp_path: Path) -> None:
    folder = first(tmp_path, layer="some", repository="mine")
    refused(folder, "None of its folders says at which layer", 3)
    report = bring(folder, 3, layer=4)
    assert report.vectors[0].layers == [4]
    assert "taken for one of the residual stream" in report.found[1]


def test_mlp_outputs_are_added_and_not_read(tmp_path: Path) -> None:
    for folder in (
        first(tmp_path / "a", repository="models--google--gemma-scope-2b-pt-mlp"),
        second(tmp_path / "b", hook="model.layers.2.post_feedforward_layernorm.output"),
    ):
        report = bring(folder, 3)
        assert report.vectors[0].reader is None
        assert "MLP's output" in report.problems[0]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: first(root, repository="gemma-scope-2b-pt-att"), "before its output projection"),
        (lambda root: first(root, repository="gemma-scope-2b-pt-transcoders"), "a transcoder"),
        (lambda root: first(root, layer="embedding"), "on the embedding"),
        (lambda root: first(root, layer="layer_9"), "acts at layer 9"),
        (lambda root: second(root, hook="model.layers.2.self_attn.o_proj.input"), "inside attention"),
        (lambda root: second(root, type="transcoder"), "reads one place and writes another"),
        (lambda root: second(root, affine_connection=True), "reads one place and writes another"),
        (lambda root: second(root, hf_hook_point_out="model.layers.3.output"), "reads one place"),
        (lambda root: second(root, architecture="topk"), "'topk'; read is jump_relu"),
        (lambda root: second(root, hook=3), "does not say where"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, make: Callable[[Path], Path], sentence: str) -> None:
    refused(make(tmp_path), sentence, 3)


def archive(folder: Path, name: str, content: bytes, how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(folder / "params.npz", "w", how) as file:
        file.writestr(f"{name}.npy", content)


def npy(array: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "how", "sentence"),
    [
        (npy(np.array([{}], dtype=object), allow_pickle=True), zipfile.ZIP_STORED, "holds object, not"),
        (npy(np.ones((HIDDEN, 4))), zipfile.ZIP_DEFLATED, "is compressed"),
        (npy(np.ones((HIDDEN, 4)))[:-8], zipfile.ZIP_STORED, "not as long as its header says"),
        (npy(np.ones((2, 2, 2))), zipfile.ZIP_STORED, "which no weights have"),
        (b"nonsense", zipfile.ZIP_STORED, "no archive of NumPy arrays, or damaged"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': open(1)", zipfile.ZIP_STORED, "no archive of NumPy arrays"),
    ],
    ids=["objects", "compressed", "cut off", "three dimensions", "no array", "code in the header"],
)  # fmt: skip
def test_hostile_archives(tmp_path: Path, content: bytes, how: int, sentence: str) -> None:
    folder = first(tmp_path)
    archive(folder, "W_enc", content, how)
    refused(folder, sentence, 3)


def test_other_files_of_these_names(tmp_path: Path) -> None:
    folder = first(tmp_path)
    (folder / "params.npz").write_bytes(b"PK\x03\x04 nonsense")
    refused(folder, "no archive of NumPy arrays, or damaged", 3)
    np.savez(folder / "params.npz", W_enc=weights()["W_enc"].numpy())
    refused(folder, "no array 'W_dec'", 3)
    refused(first(tmp_path / "b"), "no feature 40", 40)


def test_an_uploaded_archive_gets_advice_that_fits() -> None:
    def bring_bytes() -> ImportReport:
        data = b"PK\x03\x04 nonsense"
        return read_import("params.npz", data, model="m", hidden_size=HIDDEN, layers=LAYERS, choose=Choice())

    with pytest.raises(VectorError, match="One of Gemma Scope is read from its folder"):
        bring_bytes()


def test_columns_first(tmp_path: Path) -> None:
    folder = first(tmp_path)
    arrays = {name: np.asfortranarray(tensor.numpy()) for name, tensor in weights().items()}
    np.savez(folder / "params.npz", **arrays)
    (vector,) = bring(folder, 7).vectors
    torch.testing.assert_close(full(vector), weights()["W_dec"][7])
