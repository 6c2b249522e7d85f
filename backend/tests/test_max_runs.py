"""How many runs a GPU has room for: arithmetic, on models whose numbers are public."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from steersight.engine.loading import graph_tokens
from steersight.engine.max_runs import LEAST, MOST, USUAL, bytes_of_token, bytes_of_weights, chosen, fitting
from steersight.engine.options import EngineOptions, ModelFacts

GIB = 1 << 30
LLAMA_8B = transformers.LlamaConfig(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False,
)  # fmt: skip


def test_a_token_of_an_8b_llama_takes_128_kib_and_its_weights_15_gib() -> None:
    assert bytes_of_token(LLAMA_8B, 2, ranks=1) == 128 << 10
    assert bytes_of_weights(LLAMA_8B, 2, ranks=1) == 8_030_261_248 * 2
    assert bytes_of_token(LLAMA_8B, 2, ranks=4) == 32 << 10
    assert bytes_of_weights(LLAMA_8B, 2, ranks=4) == 8_030_261_248 * 2 // 4
    # More ranks than heads: each keeps one all the same.
    assert bytes_of_token(LLAMA_8B, 2, ranks=16) == 16 << 10


def test_other_names_for_the_same() -> None:
    gpt2 = transformers.GPT2Config(n_layer=12, n_head=12, n_embd=768)
    assert bytes_of_token(gpt2, 4, ranks=1) == 2 * 12 * 768 * 4
    gemma = transformers.Gemma3TextConfig(num_hidden_layers=2, num_key_value_heads=1, head_dim=256)
    assert bytes_of_token(gemma, 2, ranks=1) == 2 * 2 * 256 * 2


@pytest.mark.parametrize(
    ("memory", "runs"),
    [
        (80, MOST),  # room for 442,000 tokens
        (24, 56),  # 29,800 tokens
        (20, LEAST),  # hardly any
        (8, LEAST),  # not even for the weights, which vLLM says in its own words
    ],
)
def test_an_8b_model_on_gpus_of_several_sizes(memory: int, runs: int) -> None:
    device = int(0.9 * memory * GIB)
    assert fitting(device, 8_030_261_248 * 2, 128 << 10, max_model_len=4096) == runs


def test_short_runs_need_less() -> None:
    device = int(0.9 * 24 * GIB)
    assert fitting(device, 8_030_261_248 * 2, 128 << 10, max_model_len=256) == 112


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of 80 GiB that is no CPU."""
    import vllm.platforms

    device = SimpleNamespace(is_cpu=lambda: False, get_device_total_memory=lambda: 80 * GIB)
    monkeypatch.setattr(vllm.platforms, "current_platform", device)


def options(folder: Path, config: Any, **chosen: Any) -> EngineOptions:
    config.save_pretrained(folder)
    return EngineOptions(model=str(folder), data_dir=folder, **chosen)


def test_what_is_asked_for_is_done(tmp_path: Path) -> None:
    assert chosen(EngineOptions(model="unknown", max_runs=7), "bfloat16", 4096) == 7


def test_a_cpu_has_the_usual_number(tmp_path: Path) -> None:
    assert chosen(EngineOptions(model="unknown"), "float32", 4096) == USUAL


@pytest.mark.usefixtures("gpu")
def test_a_gpu_has_what_fits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert chosen(options(tmp_path, LLAMA_8B), "bfloat16", 4096) == MOST
    assert "Up to 256 runs are computed at once" in caplog.text
    assert chosen(options(tmp_path, LLAMA_8B, gpu_memory=0.27), "bfloat16", 4096) == 56


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "The model is quantised."),
        ({"kv_lora_rank": 512}, "The model's KV cache is compressed."),
        ({"model_type": "unheard-of"}, "unheard-of"),
    ],
)
def test_a_model_of_which_too_little_is_known_has_the_usual_number(
    change: dict[str, Any], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = options(tmp_path, LLAMA_8B)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert chosen(known, "bfloat16", 4096) == USUAL
    assert why in caplog.text
    assert "--max-runs chooses" in caplog.text


@pytest.mark.parametrize(
    ("layers", "hidden", "length", "runs", "tokens"),
    [
        (32, 4096, 8192, 128, 512), (80, 8192, 8192, 64, 136), (4, 128, 256, 16, 256),
        (4, 128, 256, 300, 300),
    ],
)  # fmt: skip
def test_a_graph_takes_no_more_tokens_than_a_conversation_has_or_there_is_room_for(
    layers: int, hidden: int, length: int, runs: int, tokens: int
) -> None:
    model = ModelFacts("m", layers, hidden, 100, "bfloat16", length, [])
    assert graph_tokens(model, runs) == tokens
