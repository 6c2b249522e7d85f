"""What importers make of files: layers, operators, units, and sentences for what does not fit."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import zstandard
from safetensors.torch import save

from steersight.vectors.importers import Choice, ImportReport, read_import
from steersight.vectors.importers.plain import layer_of
from steersight.vectors.importers.report import clean_id
from steersight.vectors.store import SteeringVector, VectorError, load_vector, save_vector

from .other_projects import HIDDEN, LAYERS, logits, repeng, steered, steering_vectors, tiny

__all__ = ["repeng", "steering_vectors", "tiny"]  # fixtures


def bring(data: bytes | Path, name: str = "a vector.safetensors", **choices: Any) -> ImportReport:
    return read_import(
        name, data, model="/models/Tiny", hidden_size=HIDDEN, layers=LAYERS,
        label=choices.pop("label", ""), choose=Choice(**choices),
    )  # fmt: skip


def one(data: bytes | Path, name: str = "a vector.safetensors", **choices: Any) -> SteeringVector:
    (vector,) = bring(data, name, **choices).vectors
    return vector


def refused(data: bytes | Path, sentence: str, name: str = "x", **choices: Any) -> None:
    with pytest.raises(VectorError, match=sentence):
        bring(data, name, **choices)


def direction(seed: int = 0, width: int = HIDDEN) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed)) * 3


def full(vector: SteeringVector) -> torch.Tensor:
    """Directions at their own lengths."""
    return vector.directions * vector.lengths[:, None]


def assert_saved(vector: SteeringVector, folder: Path) -> None:
    """The vector survives its own file."""
    save_vector(vector, folder / "saved.safetensors")
    again = load_vector(folder / "saved.safetensors")
    torch.testing.assert_close(full(again), full(vector))
    assert (again.id, again.layers, again.operator, again.site) == (
        vector.id, vector.layers, vector.operator, vector.site,
    )  # fmt: skip


# Steersight's own


def own_file(folder: Path, **fields: Any) -> bytes:
    settings: dict[str, Any] = {
        "id": "calm", "label": "Calm", "description": "", "layers": [2, 4],
        "directions": torch.stack([direction(1), direction(2)]), "range": (-2.0, 2.0), "suggested": 1.0,
        "model": "tiny", "hidden_size": HIDDEN, "operator": "add_absolute", **fields,
    }  # fmt: skip
    save_vector(SteeringVector(**settings), folder / "calm.safetensors")
    return (folder / "calm.safetensors").read_bytes()


def test_an_own_file_comes_as_it_is(tmp_path: Path) -> None:
    data = own_file(tmp_path)
    report = bring(data, "whatever.txt")
    (vector,) = report.vectors
    assert (vector.id, vector.operator, vector.layers, vector.suggested) == (
        "calm",
        "add_absolute",
        [2, 4],
        1.0,
    )
    torch.testing.assert_close(full(vector), torch.stack([direction(1), direction(2)]))
    assert report.format == "Steersight vector"
    assert "another model" not in " ".join(report.found)


def test_an_own_file_can_be_renamed_and_keeps_its_lengths(tmp_path: Path) -> None:
    vector = one(own_file(tmp_path), id="quiet", label="Quiet")
    assert (vector.id, vector.label) == ("quiet", "Quiet")
    torch.testing.assert_close(vector.lengths, torch.stack([direction(1), direction(2)]).norm(dim=-1))


def test_an_own_file_of_a_sibling_model_says_so(tmp_path: Path) -> None:
    assert "another model" in " ".join(bring(own_file(tmp_path, model="other")).found)


def test_an_own_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    refused(own_file(tmp_path, layers=[2, 6]), "acts at layer 6; tiny's layers are 0 to 5")
    wide = own_file(tmp_path, hidden_size=8, directions=torch.ones(2, 8))
    refused(wide, "stream of 8 numbers; tiny's has 32")


# Plain safetensors


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("layer_12", 12), ("layers.12", 12), ("12", 12), ("direction.12", 12), ("model.layers.3.out", 3),
        ("transformer.h.3", 3), ("gpt_neox.layers.4.input", 3), ("blocks.5.hook_in", 4),
        ("blocks.5.hook_resid_post", 5), ("blocks.5.hook_resid_pre", 4), ("blocks.0.hook_resid_pre", -1),
        ("v2_layer_7", 7), ("refusal", None), ("1.2", None), ("layer_1_layer_2", None), ("9" * 9, None),
    ],
)  # fmt: skip
def test_a_layer_is_told_from_a_name(name: str, layer: int | None) -> None:
    assert layer_of(name) == layer


def test_one_tensor_per_layer(tmp_path: Path) -> None:
    tensors = {
        "layer_1": direction(1).half(),
        "layer_4": direction(2).bfloat16()[None],
        "step": torch.ones(3),
    }
    report = bring(save(tensors), "some name.safetensors")
    (vector,) = report.vectors
    assert (vector.id, vector.label, vector.layers) == ("some-name", "some-name", [1, 4])
    assert (vector.operator, vector.range, vector.suggested) == ("add", (-0.25, 0.25), 0.1)
    torch.testing.assert_close(full(vector)[0], direction(1).half().float())
    assert "told from names such as 'layer_" in report.found[0]
    assert report.problems == ["The tensor 'step' of shape [3] is no direction and was left out."]
    assert_saved(vector, tmp_path)


def test_a_row_per_layer() -> None:
    rows = torch.stack([direction(i) for i in range(LAYERS)])
    rows[2] = 0
    report = bring(save({"refusal_dir": rows}))
    (vector,) = report.vectors
    assert vector.layers == [0, 1, 3, 4, 5]
    torch.testing.assert_close(full(vector)[2], rows[3])
    assert report.problems == ["The direction of layer 2 is zero and was left out."]


def test_hidden_states_have_an_embedding_first() -> None:
    rows = torch.stack([direction(i) for i in range(LAYERS + 1)])
    report = bring(save({"hidden": rows}))
    torch.testing.assert_close(full(report.vectors[0]), rows[1:])
    assert "first row is the embedding" in report.found[0]


def test_a_lone_direction_needs_a_layer() -> None:
    data = save({"refusal": direction()})
    refused(data, r"does not say at which layer it acts. Choose a layer \(`--layer N`, 0 to 5\)")
    assert one(data, layer=3).layers == [3]
    refused(data, "acts at layer 6", layer=6)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"layer_1": torch.ones(8)}, r"no tensor of shape \[32\].*'layer_1' \[8\]"),
        ({"layer_1": torch.ones(HIDDEN, dtype=torch.int32)}, "no tensor of shape"),
        ({"layer_9": torch.ones(HIDDEN)}, "acts at layer 9"),
        ({"a": torch.ones(4, HIDDEN)}, "4 rows; the model has 6 layers"),
        ({"a": torch.ones(6, HIDDEN), "layer_1": torch.ones(HIDDEN)}, "which to use is not clear"),
        ({"layer_1": torch.ones(HIDDEN), "layers.1": torch.ones(HIDDEN)}, "two directions for layer 1"),
        ({"blocks.0.hook_resid_pre": torch.ones(HIDDEN)}, "before layer 0"),
        ({"layer_1": torch.zeros(HIDDEN)}, "points nowhere"),
        ({"layer_1": torch.full((HIDDEN,), float("nan"))}, "NaN"),
        ({"layer_1": torch.full((HIDDEN,), 1e38)}, "too large to be meant"),
        ({"W_dec": torch.ones(4, HIDDEN)}, "weights of a sparse autoencoder"),
    ],
)
def test_plain_files_that_cannot_be_placed(tensors: dict[str, torch.Tensor], sentence: str) -> None:
    refused(save(tensors), sentence)


# Names


@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "..", "", "a/b\\c:d", "x" * 300, "ü ö.gguf"])
def test_no_name_hides_or_leads_out(name: str) -> None:
    made = one(save({"layer_1": direction()}), name).id
    assert made == clean_id(made)
    assert "/" not in made
    assert not made.startswith(".")


# GGUF


def control_file(path: Path, directions: dict[int, Any], architecture: str = "controlvector") -> bytes:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_array("extra.list", ["a", "b"])
    writer.add_array("extra.numbers", [1, 2, 3])
    for layer, values in directions.items():
        writer.add_tensor(f"direction.{layer}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_our_reader_of_gguf_agrees_with_the_package(tmp_path: Path) -> None:
    values = {n: direction(n).numpy().astype(np.float16 if n == 2 else np.float32) for n in (1, 2, 5)}
    vector = one(control_file(tmp_path / "x.gguf", values), "x.gguf")
    assert (vector.id, vector.layers, vector.operator) == ("x", [1, 2, 5], "add_absolute")
    assert vector.provenance["model_hint"] == "llama"
    theirs = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    for layer, row in zip(vector.layers, full(vector), strict=True):
        np.testing.assert_allclose(row.numpy(), theirs[f"direction.{layer}"].astype(np.float32), rtol=1e-6)


def test_layers_counted_from_the_end(tmp_path: Path) -> None:
    report = bring(control_file(tmp_path / "x.gguf", {-1: direction().numpy()}))
    assert report.vectors[0].layers == [5]
    assert "counted from the model's end" in " ".join(report.found)


@pytest.mark.parametrize(
    ("directions", "architecture", "sentence"),
    [
        ({1: np.ones(8, np.float32)}, "controlvector", "stream of 8 numbers"),
        ({6: np.ones(HIDDEN, np.float32)}, "controlvector", "acts at layer 6"),
        ({1: np.ones(HIDDEN, np.float64)}, "controlvector", "F32 and F16 are read"),
        ({1: np.ones((2, HIDDEN), np.float32)}, "controlvector", "one dimension"),
        ({1: np.ones(HIDDEN, np.float32)}, "llama", "architecture 'llama', not a control vector"),
        ({}, "controlvector", "without a tensor named"),
    ],
)
def test_gguf_that_does_not_fit(
    tmp_path: Path, directions: dict[int, Any], architecture: str, sentence: str
) -> None:
    refused(control_file(tmp_path / "x.gguf", directions, architecture), sentence)


def hostile(body: bytes, tensors: int = 0, fields: int = 1, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + body


KEY = struct.pack("<Q", 1) + b"a"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (hostile(b"", fields=1 << 60), "metadata fields; at most 1024"),
        (hostile(b"", tensors=1 << 60), "tensors; at most 4096"),
        (hostile(struct.pack("<Q", 1 << 40)), "bytes of text"),
        (hostile(KEY + struct.pack("<IIQ", 9, 0, 1 << 40)), "numbers in one list"),
        (hostile(KEY + struct.pack("<IIQ", 9, 8, 1 << 40)), "texts in one list"),
        (hostile(KEY + struct.pack("<IIQ", 9, 9, 1)), "list of the unknown type 9"),
        (hostile(KEY + struct.pack("<I", 99)), "unknown type 99"),
        (hostile(b"", version=1), "version 1"),
        (hostile(b"", fields=0), "without a tensor named"),
        (hostile(struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 3)), "power of two"),
        (hostile(KEY + struct.pack("<IQIQ", 1, HIDDEN, 0, 0), tensors=1, fields=0)[:-4], "middle of its"),
        (
            hostile(
                struct.pack("<Q", 11) + b"direction.1" + struct.pack("<IQIQ", 1, HIDDEN, 0, 1 << 50),
                tensors=1, fields=0,
            ),
            "beyond the end",
        ),
    ],
)  # fmt: skip
def test_a_hostile_gguf_is_refused_at_once(data: bytes, sentence: str) -> None:
    """The package's own reader would read on for the fourth of these until memory is full."""
    refused(data, sentence)


def test_repeng(repeng: Any, tiny: Any, tmp_path: Path) -> None:
    """A file of repeng 0.4.0's export, and its ControlModel's logits with the same coefficient."""
    directions = {layer: direction(layer).numpy() for layer in (5, 4, 3, 2, 1)}
    made = repeng.ControlVector(model_type="llama", directions=directions)
    made.export_gguf(str(tmp_path / "happy.gguf"))
    vector = one((tmp_path / "happy.gguf").read_bytes(), "happy.gguf")
    plain = logits(tiny)
    ours = {strength: steered(tiny, vector, strength) for strength in (1.0, -0.7)}
    model = repeng.ControlModel(tiny, [-1, -2, -3, -4, -5])
    for strength, got in ours.items():
        model.set_control(made, strength)
        theirs = logits(model)
        assert (theirs - plain).abs().max() > 0.1
        torch.testing.assert_close(got, theirs, atol=1e-5, rtol=1e-5)
    assert_saved(vector, tmp_path)


# steering-vectors, and pickles


def convert(vector: Any) -> bytes:
    """The lines that docs/steering.md gives."""
    tensors = {f"layer_{n}": v.contiguous() for n, v in vector.layer_activations.items()}
    return save(tensors, {"layer_type": vector.layer_type})


@pytest.mark.parametrize("layer_type", ["decoder_block", "self_attn"])
def test_steering_vectors(steering_vectors: Any, tiny: Any, layer_type: str) -> None:
    """Its own apply() and ours, after the conversion that is documented (steering-vectors 0.12.2)."""
    activations = {layer: direction(layer) for layer in (1, 4)}
    made = steering_vectors.SteeringVector(layer_activations=activations, layer_type=layer_type)
    vector = one(convert(made))
    assert vector.operator == "add_absolute"
    assert vector.site == ("attention" if layer_type == "self_attn" else "residual")
    with made.apply(tiny, multiplier=-1.5):
        theirs = logits(tiny)
    assert (theirs - logits(tiny)).abs().max() > 0.1
    torch.testing.assert_close(steered(tiny, vector, -1.5), theirs, atol=1e-5, rtol=1e-5)


def test_other_layer_types_are_refused() -> None:
    refused(save({"layer_1": direction()}, {"layer_type": "mlp"}), "made for 'mlp'")


def test_pickles_are_refused_with_the_way_to_convert_them(steering_vectors: Any, tmp_path: Path) -> None:
    made = steering_vectors.SteeringVector(layer_activations={1: direction()})
    for zipped in (True, False):
        torch.save(made, tmp_path / "v.safetensors", _use_new_zipfile_serialization=zipped)
        refused((tmp_path / "v.safetensors").read_bytes(), "could run code.*save_file", "v.safetensors")
    refused(b"anything", "could run code", "x.pt")
    refused(b"\x80\x04K\x01.", "could run code")


# JSON


def lens_tensor(rows: torch.Tensor, compression: str | None = "zstd") -> dict[str, Any]:
    """As vllm-lens' serialize_tensor writes it."""
    brain = rows.dtype == torch.bfloat16
    array = rows.view(torch.int16).numpy() if brain else rows.numpy()
    raw = array.tobytes()
    fields = {"dtype": str(array.dtype), "original_dtype": str(rows.dtype), "shape": list(rows.shape)}
    if compression == "zstd":
        raw = zstandard.ZstdCompressor(level=1).compress(raw)
        fields["compression"] = "zstd"
    return {"data": base64.b64encode(raw).decode("ascii"), **fields}


def lens(rows: torch.Tensor | None = None, **fields: Any) -> dict[str, Any]:
    rows = torch.stack([direction(1), direction(2)]) if rows is None else rows
    activations = fields.pop("activations", None) or lens_tensor(rows)
    return {
        "activations": activations, "layer_indices": [1, 4], "scale": 4.0, "norm_match": False,
        "position_indices": None, **fields,
    }  # fmt: skip


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("compression", ["zstd", None])
def test_vllm_lens(dtype: torch.dtype, compression: str | None) -> None:
    rows = torch.stack([direction(1), direction(2)]).to(dtype)
    vector = one(as_json(lens(activations=lens_tensor(rows, compression))), "v.json")
    torch.testing.assert_close(full(vector), rows.float())
    assert (vector.id, vector.layers, vector.operator) == ("v", [1, 4], "add_absolute")
    assert (vector.range, vector.suggested) == ((-8.0, 8.0), 4.0)


def test_vllm_lens_adds_what_it_says(tiny: Any) -> None:
    """Its formula (vllm_lens/_worker_ext.py): h + v * scale; with norm_match v is first made as long as h."""
    rows = torch.stack([direction(1), direction(2)])
    for relative in (False, True):
        vector = one(as_json(lens(rows, scale=0.4, norm_match=relative)))
        handles = []
        for layer, v in zip((1, 4), rows, strict=True):

            def hook(_m: Any, _i: Any, h: torch.Tensor, v: torch.Tensor = v, rel: bool = relative) -> Any:
                v = v * (h.norm(dim=-1, keepdim=True) / v.norm()) if rel else v
                return h + v * 0.4

            handles.append(tiny.model.layers[layer].register_forward_hook(hook))
        theirs = logits(tiny)
        for handle in handles:
            handle.remove()
        assert vector.suggested == 0.4
        torch.testing.assert_close(steered(tiny, vector, 0.4), theirs, atol=1e-5, rtol=1e-5)


def test_a_request_of_vllm_lens() -> None:
    wire = json.dumps([lens(), lens(scale=1.0)])
    report = bring(as_json({"vllm_xargs": {"apply_steering_vectors": wire}}), "request.json")
    assert [vector.id for vector in report.vectors] == ["request-1", "request-2"]
    partly = bring(as_json([lens(), lens(layer_indices=[1, 6])]), "request.json")
    assert len(partly.vectors) == 1
    assert "Vector 2 of 2: It acts at layer 6" in partly.problems[0]


def test_json_by_hand() -> None:
    content = {"layers": {"3": direction().tolist()}, "label": "Mine", "description": "By hand."}
    vector = one(as_json(content), "mine.json")
    assert (vector.id, vector.label, vector.description, vector.layers) == ("mine", "Mine", "By hand.", [3])
    assert (vector.operator, vector.range, vector.suggested) == ("add", (-0.5, 0.5), 0.2)
    lists = lens(activations=[direction(1).tolist(), direction(2).tolist()])
    torch.testing.assert_close(full(one(as_json(lists)))[1], direction(2))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "no steering vector"),
        ([], "no steering vector"),
        ({"pirate": {"layer": 1, "index": 3}}, "--catalogue features.json"),
        ({"layers": {}}, "holds no direction"),
        ({"layers": {"1": [1.0] * 8}}, "stream of 8 numbers"),
        ({"layers": {"one": [1.0]}}, "not a whole number"),
        ({"layers": {"1": ["a"] * HIDDEN}}, "something else than numbers"),
        ({"layers": {"1": [True] * HIDDEN}}, "something else than numbers"),
        ({"layers": {"1": [10**400] * HIDDEN}}, "too large to be meant"),
        (lens(torch.ones(2, 3, HIDDEN)), "act on every token"),
        (lens(activations=[[[1.0]]]), "act on every token"),
        (lens(layer_indices=[1]), "2 rows of activations for 1 layers"),
        (lens(layer_indices=[1, 1]), "named twice"),
        (lens(layer_indices="12"), "not a list"),
        (lens(scale="4"), "scale is not a number"),
        (lens(scale=float("nan")), "scale is not a number"),
        (lens(activations={**lens_tensor(torch.ones(2, HIDDEN)), "shape": [2, 1 << 20]}), "their shape and"),
        (lens(activations={**lens_tensor(torch.ones(2, HIDDEN)), "shape": [1 << 20] * 2}), "too much"),
        (lens(activations={**lens_tensor(torch.ones(2, HIDDEN)), "data": "!"}), "not base64"),
        (lens(activations={**lens_tensor(torch.ones(2, HIDDEN)), "data": "AAAA"}), "decompressed"),
        (lens(activations={**lens_tensor(torch.ones(2, HIDDEN)), "dtype": "object"}), "none of float16"),
    ],
)
def test_json_that_is_refused(content: Any, sentence: str) -> None:
    refused(as_json(content), sentence)


def test_a_compressed_bomb_stays_small() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    assert len(bomb) < 1 << 16
    tensor = {**lens_tensor(torch.ones(2, HIDDEN)), "data": base64.b64encode(bomb).decode()}
    refused(as_json(lens(activations=tensor)), "are 257 bytes; their shape and dtype ask for 256")


def test_deep_json_is_refused() -> None:
    refused(b"[" * 100_000, "not JSON")


# Everything else


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 64, b"\x89PNG\r\n"])
def test_other_bytes_are_refused(data: bytes) -> None:
    refused(data, "no known format")


def test_a_file_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersight.vectors.importers.MAX_FILE_BYTES", 1 << 10)
    refused(bytes(2 << 10), "larger than")
    (tmp_path / "x.gguf").write_bytes(bytes(2 << 10))
    refused(tmp_path / "x.gguf", "larger than")


def test_paths_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "v.safetensors").write_bytes(save({"layer_1": direction()}))
    assert one(tmp_path / "v.safetensors", "v.safetensors").layers == [1]
    refused(tmp_path / "none", "cannot be read")
    refused(tmp_path, "holds neither cfg.json")
