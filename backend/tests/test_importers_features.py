"""Features of sparse autoencoders, in folders in the layout of SAELens 6 and Llama Scope.

The folders are made here by hand: SAELens itself needs transformer-lens, datasets and nltk. What its and
Llama Scope's code computes stands below as whole matrices (sae_lens/saes/*_sae.py of 6.54; lm_saes/sae.py),
and a single feature of ours must read and edit as the whole autoencoder does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from steersight.vectors.importers import Choice, ImportReport, catalogue, read_import
from steersight.vectors.importers.places import place_of
from steersight.vectors.store import FeatureReader, SteeringVector, VectorError, load_vector, save_vector

from .other_projects import HIDDEN, LAYERS, logits, steered, tiny

__all__ = ["tiny"]  # a fixture

FEATURES = 40
Weights = dict[str, torch.Tensor]


def bring(folder: Path, *features: int, **choices: Any) -> ImportReport:
    return read_import(
        folder.name, folder, model="tiny", hidden_size=HIDDEN, layers=LAYERS,
        norm=choices.pop("norm", "unknown"), label=choices.pop("label", ""),
        choose=Choice(features=features, **choices),
    )  # fmt: skip


def refused(folder: Path, sentence: str, *features: int, **choices: Any) -> None:
    with pytest.raises(VectorError, match=sentence):
        bring(folder, *features, **choices)


def random(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def stream() -> torch.Tensor:
    return random(200, HIDDEN, seed=99, scale=3)


def read(reader: FeatureReader, x: torch.Tensor) -> torch.Tensor:
    """The activation as FeatureReader's docstring has it: [tokens]."""
    u = x @ reader.weight
    if reader.scale_to:
        u = u * reader.scale_to / x.norm(dim=-1)
    return (reader.gain * u + reader.bias).clamp_min(0) * (u + reader.gate_bias > reader.threshold)


def full(vector: SteeringVector) -> torch.Tensor:
    return vector.directions[0] * vector.lengths[0]


# SAELens


def saelens_tensors(architecture: str) -> Weights:
    tensors = {
        "W_enc": random(HIDDEN, FEATURES, seed=1, scale=0.3),
        "W_dec": random(FEATURES, HIDDEN, seed=2),
        "b_dec": random(HIDDEN, seed=3),
    }
    if architecture == "gated":
        for seed, name in enumerate(("b_gate", "b_mag", "r_mag"), 4):
            tensors[name] = random(FEATURES, seed=seed, scale=0.5)
    else:
        tensors["b_enc"] = random(FEATURES, seed=4)
    if architecture == "jumprelu":
        tensors["threshold"] = random(FEATURES, seed=5).abs() * 3
    return tensors


def saelens_folder(folder: Path, architecture: str, old: bool = False, **fields: Any) -> Path:
    hook = {"hook_name": fields.pop("hook_name", "blocks.2.hook_resid_post"), "model_name": "tiny-llama"}
    config = {
        "d_in": HIDDEN, "d_sae": FEATURES, "architecture": architecture, "dtype": "float32",
        "apply_b_dec_to_input": True, "normalize_activations": "none",
        **(hook if old else {"metadata": {"sae_lens_version": "6.54.12", **hook}}), **fields,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(saelens_tensors(architecture), folder / "sae_weights.safetensors")
    return folder


def saelens_encode(tensors: Weights, architecture: str, x: torch.Tensor, take: bool = True) -> torch.Tensor:
    """All activations, as SAELens' encode: [tokens, features]."""
    x = x - tensors["b_dec"] * take
    if architecture == "gated":
        gate = (x @ tensors["W_enc"] + tensors["b_gate"] > 0).float()
        return gate * torch.relu(x @ (tensors["W_enc"] * tensors["r_mag"].exp()) + tensors["b_mag"])
    pre = x @ tensors["W_enc"] + tensors["b_enc"]
    if architecture == "jumprelu":
        return torch.relu(pre) * (pre > tensors["threshold"])
    return torch.relu(pre)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
@pytest.mark.parametrize("take", [True, False])
def test_a_feature_reads_and_edits_as_its_autoencoder(tmp_path: Path, architecture: str, take: bool) -> None:
    folder = saelens_folder(tmp_path / "sae", architecture, apply_b_dec_to_input=take)
    report = bring(folder, 7, 31)
    x, tensors = stream(), saelens_tensors(architecture)
    acts = saelens_encode(tensors, architecture, x, take)
    for vector, index in zip(report.vectors, (7, 31), strict=True):
        assert vector.reader is not None
        f = read(vector.reader, x)
        assert 0 < (f > 0).float().mean() < 1
        torch.testing.assert_close(f, acts[:, index], atol=1e-4, rtol=1e-4)
        # encode, set, decode, and keep the error: the whole autoencoder and our one direction
        edited = acts.clone()
        edited[:, index] = 5.0
        error = x - (acts @ tensors["W_dec"] + tensors["b_dec"])
        theirs = edited @ tensors["W_dec"] + tensors["b_dec"] + error
        torch.testing.assert_close(x + (5.0 - f)[:, None] * full(vector), theirs, atol=1e-3, rtol=1e-4)


def test_a_feature_of_saelens(tmp_path: Path) -> None:
    report = bring(saelens_folder(tmp_path / "res_2", "standard"), 7)
    (vector,) = report.vectors
    assert (vector.id, vector.label, vector.layers, vector.kind) == ("res_2.7", "res_2 7", [2], "feature")
    assert (vector.operator, vector.range, vector.suggested) == ("add", (-0.5, 0.5), 0.2)
    assert "feature_set" in vector.operators
    assert report.found == [
        "A standard autoencoder of 40 features of the stream after layer 2, made for 'tiny-llama'."
    ]
    save_vector(vector, tmp_path / "v.safetensors")
    again = load_vector(tmp_path / "v.safetensors")
    assert again.reader is not None
    assert vector.reader is not None
    torch.testing.assert_close(read(again.reader, stream()), read(vector.reader, stream()))
    assert (
        bring(saelens_folder(tmp_path / "res_2", "standard"), 7, id="mine", label="M").vectors[0].id == "mine"
    )


def test_configurations_from_before_saelens_6(tmp_path: Path) -> None:
    folder = saelens_folder(tmp_path / "a", "standard", old=True, activation_fn_str="relu")
    assert bring(folder, 1).vectors[0].reader is not None
    topk = saelens_folder(tmp_path / "b", "standard", old=True, activation_fn_str="topk")
    assert bring(topk, 1).vectors[0].reader is None


def test_a_top_k_feature_is_added_and_not_read(tmp_path: Path) -> None:
    report = bring(saelens_folder(tmp_path / "k", "topk"), 3)
    assert report.vectors[0].reader is None
    assert "feature_set" not in report.vectors[0].operators
    assert "depends on all of them: features can be added" in report.problems[0]
    torch.testing.assert_close(full(report.vectors[0]), saelens_tensors("topk")["W_dec"][3])
    scaled = bring(saelens_folder(tmp_path / "k", "topk", rescale_acts_by_decoder_norm=True), 3).vectors[0]
    assert float(scaled.lengths[0]) == pytest.approx(1)


def tiny_gpt2() -> Any:
    """A GPT-2 of random weights whose stream has a mean worth taking out."""
    torch.manual_seed(5)
    config = transformers.GPT2Config(
        n_embd=HIDDEN, n_layer=LAYERS, n_head=4, vocab_size=50, n_positions=64, resid_pdrop=0, embd_pdrop=0,
        attn_pdrop=0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("c_proj.bias", "wte.weight")):
                weight += 0.3
    return model


def centre(model: Any) -> Any:
    """The same model with the mean taken out of all that is written into the stream, as transformer_lens
    does with center_writing_weights. Its unembedding stays, and is a copy first, for it is tied."""
    body = model.transformer
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    written = [body.wte.weight, body.wpe.weight]
    for block in body.h:
        for part in (block.attn.c_proj, block.mlp.c_proj):
            written += [part.weight, part.bias]  # Conv1D: [in, out]
    with torch.no_grad():
        for weight in written:
            weight -= weight.mean(dim=-1, keepdim=True)
    return model


CENTRED = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}


def at_layer(model: Any, change: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    """Stream after block 2, and logits; the stream goes on as `change` has it."""
    seen: list[torch.Tensor] = []

    def hook(_m: Any, _i: Any, out: Any) -> Any:
        h = out[0] if isinstance(out, tuple) else out
        seen.append(h.clone())
        changed = h if change is None else change(h)
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    handle = model.transformer.h[2].register_forward_hook(hook)
    made = logits(model)
    handle.remove()
    return seen[0][0], made


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_features_of_a_centred_stream_are_read_and_set_on_the_raw_one(
    tmp_path: Path, architecture: str
) -> None:
    """The whole autoencoder in a model with centred writing weights, and our one feature in the raw model."""
    folder = saelens_folder(tmp_path / "c", architecture, hook_name="blocks.2.hook_resid_post", **CENTRED)
    report = bring(folder, 7, norm="layer")
    (vector,) = report.vectors
    assert "stream without its mean (center_writing_weights)" in report.found[1]
    assert vector.reader is not None
    raw, centred = tiny_gpt2(), centre(tiny_gpt2())
    ours, plain = at_layer(raw)
    theirs, same = at_layer(centred)
    torch.testing.assert_close(plain, same, atol=1e-4, rtol=1e-4)  # that is what centring promises
    assert (ours - theirs).abs().max() > 0.1, "there is no mean to take out: the test would prove nothing"
    tensors = saelens_tensors(architecture)
    f = saelens_encode(tensors, architecture, theirs)[:, 7]
    torch.testing.assert_close(read(vector.reader, ours), f, atol=1e-4, rtol=1e-4)

    def whole(h: torch.Tensor) -> torch.Tensor:
        acts = saelens_encode(tensors, architecture, h[0])
        edited = acts.clone()
        edited[:, 7] = 6.0
        return h + (edited - acts) @ tensors["W_dec"]

    def one(h: torch.Tensor) -> torch.Tensor:
        assert vector.reader is not None
        return h + (6.0 - read(vector.reader, h[0]))[:, None] * full(vector)

    torch.testing.assert_close(at_layer(raw, one)[1], at_layer(centred, whole)[1], atol=1e-3, rtol=1e-3)


def test_what_is_not_known_of_a_centred_stream_is_said(tmp_path: Path) -> None:
    folder = saelens_folder(tmp_path / "c", "standard", **CENTRED)
    rms = bring(folder, 7, norm="rms")
    assert len(rms.found) == 1
    torch.testing.assert_close(full(rms.vectors[0]), saelens_tensors("standard")["W_dec"][7])
    unknown = bring(folder, 7)
    assert unknown.vectors[0].reader is None
    assert "whether this model's norms take the mean out is not known" in unknown.problems[0]
    silent = bring(saelens_folder(tmp_path / "s", "standard"), 7, norm="layer")
    assert "does not say whether it was trained on a centred stream" in silent.found[1]
    assert silent.vectors[0].reader is not None
    raw = {"model_from_pretrained_kwargs": {"center_writing_weights": False}}
    told = bring(saelens_folder(tmp_path / "t", "standard", **raw), 7, norm="layer")
    assert len(told.found) == 1


@pytest.mark.parametrize("scaling", ["expected_average_only_in", "layer_norm", "constant_norm_rescale"])
def test_a_scaled_stream_is_not_read(tmp_path: Path, scaling: str) -> None:
    report = bring(saelens_folder(tmp_path / "n", "standard", normalize_activations=scaling), 3)
    assert report.vectors[0].reader is None
    assert scaling in report.problems[0]


@pytest.mark.parametrize(
    ("hook", "layer", "site", "read"),
    [
        ("blocks.3.hook_resid_post", 3, "residual", True),
        ("blocks.3.hook_resid_pre", 2, "residual", True),
        ("blocks.3.hook_out", 3, "residual", True),
        ("blocks.3.hook_in", 2, "residual", True),
        ("model.layers.3", 3, "residual", True),
        ("layers.3", 3, "residual", True),
        ("model.layers.3.output", 3, "residual", True),
        ("model.layers.3.input", 2, "residual", True),
        ("model.language_model.layers.3", 3, "residual", True),
        ("transformer.h.3", 3, "residual", True),
        ("h.3", 3, "residual", True),
        ("gpt_neox.layers.3", 3, "residual", True),
        ("model.decoder.layers.3", 3, "residual", True),
        ("model.layers.3.post_feedforward_layernorm.output", 3, "residual", False),
        ("blocks.3.mlp.hook_out", 3, "residual", False),
        ("blocks.3.attn.hook_out", 3, "attention", False),
        ("blocks.3.hook_mlp_out", 3, "residual", False),
        ("blocks.3.hook_attn_out", 3, "attention", False),
    ],
)
def test_hooks_have_places(hook: str, layer: int, site: str, read: bool) -> None:
    place = place_of(hook)
    assert (place.layer, place.site, not place.unread) == (layer, site, read)


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        ("blocks.0.hook_resid_pre", "on the embedding"),
        ("blocks.3.attn.hook_z", "hook_attn_out"),
        ("blocks.3.hook_resid_mid", "nothing can be added"),
        ("model.layers.3.self_attn.o_proj.input", "before its output projection"),
        ("transformer.h.0.input", "on the embedding"),
        ("transformer.h.3.mlp", "nothing can be added"),
        ("model.layers.999999", "not known here"),
        ("ln_final.hook_normalized", "not known here"),
        ("", "not known here"),
    ],
)
def test_other_hooks_are_refused(hook: str, sentence: str) -> None:
    with pytest.raises(VectorError, match=sentence):
        place_of(hook)


def test_features_add_where_they_were_trained(tiny: Any, tmp_path: Path) -> None:
    """Adding s to a feature's activation at each hook, done on the real module, and ours."""
    for hook in ("hook_resid_pre", "hook_resid_post", "hook_mlp_out", "hook_attn_out"):
        folder = saelens_folder(tmp_path / hook, "standard", hook_name=f"blocks.3.{hook}")
        (vector,) = bring(folder, 5).vectors
        push = 4.0 * saelens_tensors("standard")["W_dec"][5]
        block = tiny.model.layers[3]
        if hook == "hook_resid_pre":
            handle = block.register_forward_pre_hook(lambda _m, inputs, p=push: (inputs[0] + p, *inputs[1:]))
        else:
            module = {"hook_mlp_out": block.mlp, "hook_attn_out": block.self_attn}.get(hook, block)
            handle = module.register_forward_hook(
                lambda _m, _i, out, p=push: (out[0] + p, *out[1:]) if isinstance(out, tuple) else out + p
            )
        theirs = logits(tiny)
        handle.remove()
        absolute = replace(vector, directions=full(vector)[None], operator="add_absolute")
        torch.testing.assert_close(steered(tiny, absolute, 4.0), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "features", "sentence"),
    [
        ({}, (), "holds 40 features; say which with `--feature N`, 0 to 39"),
        ({}, (40,), "no feature 40"),
        ({}, (-1,), "no feature -1"),
        ({}, tuple(range(300)), "too many"),
        ({"d_in": 8}, (1,), "stream of 8 numbers"),
        ({"d_in": "32"}, (1,), "no whole number 'd_in'"),
        ({"hook_name": "blocks.6.hook_resid_post"}, (1,), "acts at layer 6"),
        ({"hook_head_index": 2}, (1,), "single attention head"),
        ({"architecture": "transcoder"}, (1,), "'transcoder'; read are standard"),
        ({"d_sae": 41}, (1,), r"W_dec.*expected \[41, 32\]"),
    ],
)
def test_saelens_folders_that_are_refused(
    tmp_path: Path, fields: dict[str, Any], features: tuple[int, ...], sentence: str
) -> None:
    folder = saelens_folder(tmp_path / "sae", "standard")
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"].update({k: v for k, v in fields.items() if k == "hook_name"})
    config.update({k: v for k, v in fields.items() if k != "hook_name"})
    (folder / "cfg.json").write_text(json.dumps(config))
    refused(folder, sentence, *features)


def test_missing_and_broken_parts(tmp_path: Path) -> None:
    folder = saelens_folder(tmp_path / "sae", "jumprelu")
    tensors = saelens_tensors("jumprelu")
    del tensors["threshold"]
    save_file(tensors, folder / "sae_weights.safetensors")
    refused(folder, "no tensor 'threshold'", 1)
    tensors["threshold"] = torch.full((FEATURES,), float("nan"))
    save_file(tensors, folder / "sae_weights.safetensors")
    refused(folder, "not finite", 1)
    (folder / "sae_weights.safetensors").unlink()
    refused(folder, "cannot be read|not a safetensors|No such file", 1)
    (folder / "cfg.json").write_text("[1]")
    refused(folder, "not a JSON object", 1)


# Llama Scope


def scope_tensors(seed: int = 20) -> Weights:
    return {
        "encoder.weight": random(FEATURES, HIDDEN, seed=seed, scale=0.3),
        "encoder.bias": random(FEATURES, seed=seed + 1),
        "decoder.weight": random(HIDDEN, FEATURES, seed=seed + 2),
        "decoder.bias": random(HIDDEN, seed=seed + 3),
    }


def scope_folder(
    root: Path, layer: int = 2, position: str = "R", expansion: str = "8x", **fields: Any
) -> Path:
    folder = root / f"Tiny-Base-L{layer}{position}-{expansion}"
    (folder / "checkpoints").mkdir(parents=True)
    hook = {"R": "hook_resid_post", "M": "hook_mlp_out", "A": "hook_attn_out"}[position]
    config = {
        "hook_point_in": f"blocks.{layer}.{hook}", "hook_point_out": f"blocks.{layer}.{hook}",
        "d_model": HIDDEN, "d_sae": FEATURES, "act_fn": "jumprelu", "jump_relu_threshold": 1.5,
        "norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 17.0, "out": 17.0},
        "sparsity_include_decoder_norm": True, "apply_decoder_bias_to_pre_encoder": False, **fields,
    }  # fmt: skip
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "hyperparams.json").write_text(json.dumps(config))
    save_file(scope_tensors(), folder / "checkpoints" / "final.safetensors")
    return folder


def scope_loaded(tensors: Weights, include_norm: bool = True, norm: float = 17.0) -> Weights:
    """What the makers' loader turns the weights into before it runs them on the stream as it is."""
    factor = math.sqrt(HIDDEN) / norm
    loaded = {**tensors, "encoder.bias": tensors["encoder.bias"] / factor}
    if include_norm:
        length = tensors["decoder.weight"].norm(dim=0)
        loaded["decoder.weight"] = tensors["decoder.weight"] / length
        loaded["encoder.weight"] = tensors["encoder.weight"] * length[:, None]
        loaded["encoder.bias"] = loaded["encoder.bias"] * length
    return loaded


@pytest.mark.parametrize("include_norm", [True, False])
def test_a_feature_of_llama_scope_contributes_what_its_makers_say(tmp_path: Path, include_norm: bool) -> None:
    folder = scope_folder(tmp_path, sparsity_include_decoder_norm=include_norm)
    (vector,) = bring(folder, 9).vectors
    x, loaded = stream(), scope_loaded(scope_tensors(), include_norm)
    pre = x @ loaded["encoder.weight"].T + loaded["encoder.bias"]
    acts = pre * (pre > 1.5)
    theirs = acts[:, 9, None] * loaded["decoder.weight"][:, 9]
    assert vector.reader is not None
    f = read(vector.reader, x)
    assert 0 < (f > 0).float().mean() < 1
    torch.testing.assert_close(f[:, None] * full(vector), theirs, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "unread"),
    [
        ({"act_fn": "relu"}, ""),
        ({"act_fn": "topk"}, ""),
        ({"act_fn": "topk", "jump_relu_threshold": 0}, "top-k"),
        ({"norm_activation": "token-wise"}, "token-wise"),
        ({"use_glu_encoder": True}, "gated"),
        ({"hook_point_in": None, "hook_point_out": None}, ""),
        ({"norm_activation": None}, ""),
        ({"norm_activation": "inference", "dataset_average_activation_norm": None}, ""),
    ],
)
def test_kinds_of_llama_scope(tmp_path: Path, fields: dict[str, Any], unread: str) -> None:
    report = bring(scope_folder(tmp_path, **fields), 9)
    assert report.vectors[0].layers == [2]
    assert (report.vectors[0].reader is None) == bool(unread)
    assert unread in " ".join(report.problems)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"hook_point_out": "blocks.2.hook_mlp_out"}, "transcoder"),
        ({"dataset_average_activation_norm": {"in": 0}}, "no number above 0"),
        ({"dataset_average_activation_norm": None}, "no number above 0"),
        ({"jump_relu_threshold": "x"}, "no number 'jump_relu_threshold'"),
        ({"d_model": 16}, "stream of 16"),
    ],
)
def test_llama_scope_that_is_refused(tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    refused(scope_folder(tmp_path, **fields), sentence, 9)


# Catalogues

CATALOGUE = {
    "shakespeare": {"layer": 3, "position": "R", "expansion": "8x", "index": 4, "description": "Old words"},
    "drama": {"layer": 2, "position": "M", "expansion": "8x", "index": 5, "description": "Theatre"},
    "looks": {"layer": 2, "position": "A", "expansion": "32x", "index": 6},
}


def test_a_catalogue_makes_a_vector_per_entry(tiny: Any, tmp_path: Path) -> None:
    scope_folder(tmp_path, 3)
    scope_folder(tmp_path / "Tiny-Base-LXM-8x", 2, "M")
    scope_folder(tmp_path / "Tiny-Base-LXA-32x", 2, "A", "32x")
    entries = {**CATALOGUE, "far": {**CATALOGUE["drama"], "layer": 5}, "bad": {"layer": 1, "index": "x"}}
    report = bring(tmp_path, catalogue=json.dumps(entries).encode())
    shakespeare, drama, looks = report.vectors
    assert [vector.id for vector in report.vectors] == ["shakespeare", "drama", "looks"]
    assert [(v.operator, v.range, v.suggested) for v in report.vectors] == [
        ("add_absolute", (-15.0, 15.0), 8.0)
    ] * 3
    assert (shakespeare.description, shakespeare.layers, shakespeare.site) == ("Old words", [3], "residual")
    assert (drama.layers, drama.site, drama.reader) == ([2], "residual", None)
    assert (looks.layers, looks.site, looks.operators) == ([2], "attention", ["add_absolute"])
    assert shakespeare.reader is not None
    assert [problem.partition(":")[0] for problem in report.problems] == ["drama", "looks", "far", "bad"]
    assert "no autoencoder in a folder ...L5M-8x" in report.problems[2]
    # /steer shakespeare 8: its activation plus 8, decoded, the error kept
    column = scope_tensors()["decoder.weight"][:, 4]
    handle = tiny.model.layers[3].register_forward_hook(lambda _m, _i, h: h + 8 * column)
    theirs = logits(tiny)
    handle.remove()
    torch.testing.assert_close(steered(tiny, shakespeare, 8.0), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "not an object of entries"),
        ({"a": 1}, "not an object of entries"),
        ({"a": {**CATALOGUE["drama"], "position": "../R"}}, "none of R, M and A"),
        ({"a": {**CATALOGUE["drama"], "expansion": "8x/../.."}}, "not of the form 8x"),
        ({"a": {**CATALOGUE["drama"], "layer": 31}}, "acts at layer 31"),
        ({f"f{n}": CATALOGUE["drama"] for n in range(300)}, "300 entries; at most 256"),
    ],
)
def test_catalogues_that_are_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    refused(tmp_path, sentence, catalogue=json.dumps(content).encode())


def test_a_catalogue_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which repositories and files are asked for; nothing is really downloaded."""
    scope_folder(tmp_path / "owner" / "Tiny-Base-LXR-8x", 3)
    asked = []

    def download(repository: str, file: str) -> Path:
        asked.append((repository, file))
        if repository != "owner/Tiny-Base-LXR-8x":
            raise VectorError("It cannot be had from the Hugging Face hub.")
        return tmp_path / repository / file

    monkeypatch.setattr(catalogue.hub, "download", download)
    data = json.dumps(CATALOGUE).encode()
    report = bring(Path("owner/Tiny-Base-LXM-8x"), catalogue=data)
    assert [vector.id for vector in report.vectors] == ["shakespeare"]
    assert asked[0] == ("owner/Tiny-Base-LXR-8x", "Tiny-Base-L3R-8x/checkpoints/final.safetensors")
    assert asked[2][0] == "owner/Tiny-Base-LXM-8x"
    refused(Path("no/such/folder"), "neither a folder nor a hub repository", catalogue=data)


def test_a_hub_out_of_reach_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    data = json.dumps(CATALOGUE).encode()
    refused(Path("owner/Tiny-Base-LXM-8x"), "cannot be had from the Hugging Face hub", catalogue=data)


def test_no_matrix_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Llama Scope autoencoder of 32x is 4 GiB as fp32."""

    def whole(_self: Any, name: str, shape: list[int]) -> torch.Tensor:
        raise AssertionError(f"{name} was read whole")

    folders = [scope_folder(tmp_path), saelens_folder(tmp_path / "sae", "gated", apply_b_dec_to_input=False)]
    monkeypatch.setattr("steersight.vectors.importers.tensors.Tensors.whole", whole)
    for folder in folders:
        assert bring(folder, 7).vectors[0].reader is not None
