"""vLLM's own arguments: which pass through, and what is said of the others."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, make_dataclass
from pathlib import Path

import pytest

from steersight.config import Settings
from steersight.engine.arguments import OURS, SAFE, WRONG, engine_arguments, known_to
from steersight.engine.loading import read_model
from steersight.engine.options import EngineOptions
from steersight.flags import add_flags, option_names, values_of

from .families import FAMILIES, make_checkpoint


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("kv_cache_dtype=fp8", "fp8"), ("--seed=7", 7), ("num-gpu-blocks-override = 128", 128),
        ("use_tqdm_on_load=False", False), ("device_ids=[0, 1]", [0, 1]), ("load_format=", ""),
        ("download_dir=/a=b", "/a=b"),
    ],
)  # fmt: skip
def test_a_value_is_json_where_it_is(text: str, value: object) -> None:
    ((_, found),) = engine_arguments(text)
    assert found == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kv_cache_dtype", "'kv_cache_dtype' is not NAME=VALUE, such as"),
        ("=3", "'=3' is not NAME=VALUE"),
        ("max_num_seqs=3", "max_num_seqs is set by --max-runs."),
        ("speculative_config={}", "computes positions that are then thrown away"),
        ("pipeline_parallel_size=2", "sees only its own layers. Use --tensor-parallel."),
        ("kv_cache_dtyp=fp8", "Is kv_cache_dtype meant?"),
        ("logits_processors=[]", "is none of the arguments of vLLM that can be passed through"),
    ],
)
def test_what_cannot_pass_is_said_in_a_sentence(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        engine_arguments(text)


def test_the_three_tables_are_apart_and_of_our_own_options_only_real_ones() -> None:
    assert not SAFE & (OURS.keys() | WRONG.keys())
    assert not OURS.keys() & WRONG.keys()
    flags = {f"--{name.replace('_', '-')}" for name in option_names(Settings)}
    assert set(OURS.values()) <= flags


def test_an_argument_that_vllm_has_no_more_is_refused() -> None:
    table = make_dataclass("Arguments", ["seed"])
    assert known_to(table, [("seed", 1), ("seed", 2)]) == {"seed": 2}
    with pytest.raises(ValueError, match="has no engine argument load_format"):
        known_to(table, [("load_format", "auto")])


def parse(*words: str) -> EngineOptions:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, EngineOptions, option_names(EngineOptions))
    return EngineOptions(**values_of(EngineOptions, parser.parse_args(words)))


def test_the_flag_may_be_given_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERSIGHT_ENGINE_ARG", "seed=1\nload_format=auto")
    assert parse().engine_arg == (("seed", 1), ("load_format", "auto"))
    assert parse("--engine-arg", "seed=2", "--engine-arg", "numa_bind=true").engine_arg == (
        ("seed", 2), ("numa_bind", True),
    )  # fmt: skip


def test_speculative_decoding_is_refused() -> None:
    assert parse().speculative_config == ""
    with pytest.raises(argparse.ArgumentError, match="not supported until that is proved"):
        parse("--speculative-config", '{"method": "ngram"}')


@dataclass
class WithCode:
    """A checkpoint that brings Python code: a configuration that has one more layer than its file says."""

    folder: Path

    def make(self) -> None:
        make_checkpoint(FAMILIES["Llama"](), self.folder)
        config = self.folder / "config.json"
        text = config.read_text()
        auto = '"auto_map": {"AutoConfig": "own.OwnConfig"}, "model_type": "own_llama",'
        config.write_text(text.replace('"model_type": "llama",', auto))
        (self.folder / "own.py").write_text(
            "from transformers import LlamaConfig\n"
            "class OwnConfig(LlamaConfig):\n"
            "    model_type = 'own_llama'\n"
            "    def __init__(self, **more):\n"
            "        super().__init__(**more)\n"
            "        self.max_position_embeddings = 99\n"
        )


def test_a_checkpoints_own_code_runs_only_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WithCode(tmp_path / "model").make()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "code"))

    def read(trust: bool) -> int:
        options = EngineOptions(
            model=str(tmp_path / "model"), data_dir=tmp_path / "data", trust_remote_code=trust
        )
        return read_model(options, lambda _stage, _progress: None).model.max_model_len

    with pytest.raises(ValueError, match=r"custom code|execute the configuration file"):
        read(trust=False)
    assert not (tmp_path / "code").exists()
    assert read(trust=True) == 99
