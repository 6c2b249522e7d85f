"""What is told of a LoRA adapter from its files: those that cannot be served are refused at start, each with
a sentence; and what is known by its adapter is never another's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from steersight.adapters import CONFIG, WEIGHTS, Adapter, adapters, made_for_another, read_adapter, room
from steersight.engine.ledger import BlockLedger, ReadOtherwiseError
from steersight.engine.lora import engine_arguments, lora_request, told
from steersight.engine.request import RunOptions
from steersight.engine.run_state import RunState
from steersight.runs.kept import BLOCK, block_keys

from .settings import settings

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def write(folder: Path, tensors: tuple[str, ...] = (f"{LAYER}.lora_A.weight",), **config: Any) -> Path:
    """An adapter as peft writes it, with these fields beside what is needed."""
    folder.mkdir(exist_ok=True)
    found = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"], **config}
    (folder / CONFIG).write_text(json.dumps(found))
    save_file({name: np.zeros((1, 1), dtype=np.float32) for name in tensors}, folder / WEIGHTS)
    return folder


def test_what_an_adapter_says_of_itself(tmp_path: Path) -> None:
    names = (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight", LAYER[:-6] + "o_proj.lora_A.weight")
    folder = write(tmp_path / "a", names, rank_pattern={"o_proj": 12}, base_model_name_or_path="org/Base")
    assert read_adapter("a", folder) == Adapter("a", str(folder), 12, ("o_proj", "q_proj"), "org/Base")


def test_several_are_named_at_start(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "two", r=24)
    chosen = settings("--lora", f"a={one}{os.pathsep}b-2.x={two}").lora
    assert [(adapter.id, adapter.path, adapter.rank) for adapter in chosen] == [
        ("a", str(one), 8), ("b-2.x", str(two), 24)
    ]  # fmt: skip
    assert settings().lora == ()
    assert room(chosen) == 32
    arguments = engine_arguments(chosen)
    assert (arguments["max_loras"], arguments["max_lora_rank"]) == (2, 32)
    assert engine_arguments(()) == {}
    assert lora_request(told(chosen), "b-2.x").lora_int_id == 2
    assert lora_request(told(chosen), "") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{here}", "does not say NAME=PATH"),
        ("a=", "does not say NAME=PATH"),
        ("a={here}{sep}a={here}", "Two adapters are called 'a'."),
        ("a b={here}", "'a b' is no name for it"),
        ("a={here}/nowhere", "There is no folder"),
        ("a={empty}", f"There is no {CONFIG} in"),
    ],
)
def test_names_and_places_that_cannot_be(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    here = write(tmp_path / "here")
    with pytest.raises(ValueError, match=why):
        adapters(text.format(here=here, empty=tmp_path / "empty", sep=os.pathsep))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"peft_type": "IA3"}, "of the type 'IA3'"),
        ({"use_dora": True}, r"DoRA \(use_dora\)"),
        ({"lora_bias": True}, "a bias in its B"),
        ({"trainable_token_indices": [3]}, "trained rows of the embeddings"),
        ({"modules_to_save": ["lm_head"]}, r"replaces whole modules \(modules_to_save: \['lm_head'\]\)"),
        ({"bias": "all"}, "trains biases"),
        ({"init_lora_weights": "pissa"}, "begun with init_lora_weights='pissa'"),
        ({"r": 0}, "rank is 0"),
        ({"r": "8"}, "rank is '8'"),
        ({"r": 1024}, "rank is 1024, and vLLM serves at most 512"),
        ({"rank_pattern": {"q_proj": 600}}, "rank is 600"),
    ],
)
def test_what_vllm_would_not_compute_is_refused(tmp_path: Path, config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_adapter("a", write(tmp_path / "a", **config))


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        ("base_model.model.lm_head.lora_A.weight", "changes lm_head, which is in no decoder layer"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "in no decoder layer"),
        ("base_model.model.model.layers.0.mlp.experts.3.w1.lora_A.weight", "changes experts"),
        (f"{LAYER}.lora_magnitude_vector", "no plain LoRA"),
    ],
)
def test_tensors_that_would_be_left_out_or_mix_in_the_lens_are_refused(
    tmp_path: Path, tensor: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        read_adapter("a", write(tmp_path / "a", (f"{LAYER}.lora_A.weight", tensor)))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    for name, content, why in (
        (WEIGHTS, b"no tensors", "cannot be read"),
        (CONFIG, b"[1]", "no JSON object"),
        (CONFIG, b"{", "cannot be read as JSON"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=why):
            read_adapter("a", folder)
    folder = write(tmp_path / "b")
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="Other formats are never opened"):
        read_adapter("b", folder)


def test_an_adapter_that_names_another_model_is_pointed_out() -> None:
    adapter = Adapter("a", "/a", 8, ("q_proj",), "org/Tiny-Llama")
    assert made_for_another(adapter, "/data/models/tiny-llama") is None
    assert made_for_another(Adapter("a", "/a", 8, ("q_proj",)), "other") is None
    assert "made for org/Tiny-Llama, and the served model is org/Other" in str(
        made_for_another(adapter, "org/Other")
    )


def state(adapter: str) -> RunState:
    """A run that nothing steers."""
    return RunState.begin(RunOptions("run", adapter=adapter), ())


def test_kept_rows_and_blocks_of_the_cache_are_known_by_the_adapter() -> None:
    """By our part of their keys alone: vLLM's own says it too, for as long as it does."""
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import init_none_hash

    from steersight.engine.scheduling import DeedKeys

    init_none_hash(get_hash_fn_by_name("sha256"))
    ids = list(range(2 * BLOCK))
    assert set(block_keys(ids, state("a"), 2)).isdisjoint(block_keys(ids, state("b"), 2))
    assert set(block_keys(ids, state("a"), 2)).isdisjoint(block_keys(ids, state(""), 2))
    assert state("").deeds(0, 8) == ""
    found = []
    for adapter in ("", "a", "b", "a"):
        keys = DeedKeys(8, "sha256")
        keys.states.add("r", RunOptions("run", adapter=adapter), ())
        request: Any = SimpleNamespace(
            request_id="r", block_hashes=[], num_tokens=16, all_token_ids=ids, mm_features=[],
            lora_request=None, cache_salt=None, prompt_embeds=None,
        )  # fmt: skip
        found.append(keys.of(request))
    assert found[1] == found[3]
    assert len({tuple(each) for each in found}) == 3


@pytest.mark.parametrize(("computed", "reads"), [("a", ""), ("", "a"), ("a", "b")])
def test_the_ledger_finds_who_would_read_another_model_s_cache(computed: str, reads: str) -> None:
    ledger = BlockLedger(8)
    ledger.begin()
    deeds: Callable[[int, int], str] = state(computed).deeds
    ledger.compute(deeds, 0, 16, [1, 2])
    ledger.read("same", deeds, 16, [1, 2])
    with pytest.raises(ReadOtherwiseError, match="another adapter"):
        ledger.read("other", state(reads).deeds, 16, [1, 2])
