"""What is estimated of a model's size, against transformers' own models and against a running engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from steersight.engine.options import EngineOptions
from steersight.machine import Gpu
from steersight.models.fit import CPU_OVERHEAD, GIB, Room, fit, token_bytes
from steersight.models.known import KNOWN
from steersight.models.shape import NotADecoderError, Shape, read_shape

from .conftest import Server
from .families import FAMILIES, MORE, make_checkpoint

SIZES: dict[str, dict[str, Any]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": {"intermediate_size": 1536, "vocab_size": 49152, "tied": True},
    "HuggingFaceTB/SmolLM2-360M-Instruct": {"intermediate_size": 2560, "vocab_size": 49152, "tied": True},
    "Qwen/Qwen3-0.6B": {"kind": "Qwen3", "intermediate_size": 3072, "vocab_size": 151936, "tied": True},
    "meta-llama/Llama-3.2-1B-Instruct": {"intermediate_size": 8192, "vocab_size": 128256, "tied": True},
    "google/gemma-2-2b-it": {"kind": "Gemma2", "intermediate_size": 9216, "vocab_size": 256000, "tied": True},
    "Qwen/Qwen3-4B-Instruct-2507": {
        "kind": "Qwen3", "intermediate_size": 9728, "vocab_size": 151936, "tied": True,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {"intermediate_size": 14336, "vocab_size": 128256},
    "microsoft/phi-4": {"kind": "Phi3", "intermediate_size": 17920, "vocab_size": 100352},
    "Qwen/Qwen2.5-32B-Instruct": {"kind": "Qwen2", "intermediate_size": 27648, "vocab_size": 152064},
    "meta-llama/Llama-3.3-70B-Instruct": {"intermediate_size": 28672, "vocab_size": 128256},
}  # fmt: skip
"""What the parameters of a known model depend on besides its shape."""

CPU = EngineOptions()


def shape(parameters: int = 135_000_000, **more: Any) -> Shape:
    """A small Llama's."""
    return Shape(
        **{
            "parameters": parameters, "dtype": "bfloat16", "layers": 30, "heads": 9, "kv_heads": 3,
            "head_size": 64, "hidden": 576, "context": 8192, **more,
        }
    )  # fmt: skip


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_the_parameters_of_a_known_model_are_those_of_transformers_own(known: Any) -> None:
    size = dict(SIZES[known.name])
    config = getattr(transformers, f"{size.pop('kind', 'Llama')}Config")(
        hidden_size=known.shape.hidden, num_hidden_layers=known.shape.layers,
        num_attention_heads=known.shape.heads, num_key_value_heads=known.shape.kv_heads,
        head_dim=known.shape.head_size, max_position_embeddings=known.shape.context,
        tie_word_embeddings=size.pop("tied", False), pad_token_id=None, **size,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) == known.shape.parameters


@pytest.mark.parametrize(
    "name", ["Llama", "GPT-2", "OPT", "GPT-NeoX", "Gemma3", "Mixtral", "BLOOM", "Falcon", "GPT-BigCode"]
)
def test_the_shape_of_a_checkpoint_is_read_off_its_files(name: str, tmp_path: Path) -> None:
    config = (FAMILIES | MORE)[name]()
    make_checkpoint(config, tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    found, checkpoint = read_shape(tmp_path)
    assert not checkpoint.missing
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert (found.dtype, found.layers, found.heads) == ("float32", 4, 4)
    assert found.context == getattr(config, "max_position_embeddings", None)
    past = model(torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values
    cached = sum(layer.keys.numel() + layer.values.numel() for layer in past.layers) * 4
    assert token_bytes(found, 4, ranks=1) == cached / 3


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ("[", "cannot be read"),
        ("[]", "no configuration"),
        ('{"architectures": ["BertModel"]}', "BertModel"),
        ('{"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": true}', "no decoder"),
        ('{"architectures": ["LlamaForCausalLM"]}', "how many layers"),
    ],
)
def test_what_is_no_decoder_is_said_to_be_none(config: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(NotADecoderError, match=word):
        read_shape(tmp_path)


def test_on_a_cpu_the_weights_count_in_the_type_that_the_engine_computes_in() -> None:
    room = Room(False, 100 * GIB)
    of_weights = {
        dtype: fit(shape(1_000_000_000), room, EngineOptions(dtype=dtype)).needs - CPU_OVERHEAD - GIB
        for dtype in ("auto", "bfloat16")
    }
    assert of_weights == {"auto": 4_000_000_000, "bfloat16": 2_000_000_000}


@pytest.mark.parametrize(
    ("asked", "options", "word"),
    [
        (shape(8_000_000_000), CPU, "It needs 33.1 GiB of memory, and 16.0 GiB are free."),
        (shape(), EngineOptions(tensor_parallel=2), "Its 9 heads of attention cannot be spread over 2."),
        (shape(kv_heads=32, head_size=128), CPU, "--kv-cache-gib 4"),
    ],
)
def test_why_a_model_does_not_fit_on_a_cpu(asked: Shape, options: EngineOptions, word: str) -> None:
    found = fit(asked, Room(False, 16 * GIB), options)
    assert not found.fits
    assert word in found.why


def test_quantised_weights_need_what_they_are_stored_in() -> None:
    found = fit(shape(quantised="awq", stored=GIB // 2), Room(False, 16 * GIB), CPU)
    assert (found.fits, found.needs) == (True, CPU_OVERHEAD + GIB + GIB // 2)
    assert "quantised (awq)" in found.why


def test_a_larger_cache_is_advised_that_is_large_enough() -> None:
    asked = shape(kv_heads=32, head_size=128)
    assert fit(asked, Room(False, 16 * GIB), EngineOptions(kv_cache_gib=4)).fits
    assert not fit(asked, Room(False, 16 * GIB), EngineOptions(kv_cache_gib=3)).fits


def test_a_model_is_spread_over_as_few_gpus_as_hold_it() -> None:
    gpus = tuple(Gpu("H100", 80 * GIB, 79 * GIB) for _ in range(8))
    named = {known.name.rpartition("/")[2]: known.shape for known in KNOWN}
    ranks = {
        name: fit(named[name], Room(True, 0, gpus), CPU, any_ranks=True)
        for name in ("Llama-3.1-8B-Instruct", "Llama-3.3-70B-Instruct", "Qwen2.5-32B-Instruct")
    }
    assert {name: (found.fits, found.ranks) for name, found in ranks.items()} == {
        "Llama-3.1-8B-Instruct": (True, 1),
        "Llama-3.3-70B-Instruct": (True, 2),
        "Qwen2.5-32B-Instruct": (True, 1),
    }


@pytest.mark.parametrize(
    ("gpus", "options", "word"),
    [
        ((), CPU, "there is none"),
        ((Gpu("T4", 16 * GIB, 15 * GIB),), CPU, "It needs 18.5 GiB of one GPU, and the engine may take 14.4"),
        ((Gpu("H100", 80 * GIB, 40 * GIB),), CPU, "smaller --gpu-memory"),
        ((Gpu("H100", 80 * GIB, 79 * GIB),), EngineOptions(tensor_parallel=2), "there are 1"),
        ((Gpu("H100", 80 * GIB, 79 * GIB),) * 3, EngineOptions(tensor_parallel=3), "32 heads"),
    ],
)
def test_why_a_model_does_not_fit_on_gpus(gpus: tuple[Gpu, ...], options: EngineOptions, word: str) -> None:
    eight = next(known.shape for known in KNOWN if "8B" in known.name)
    found = fit(eight, Room(True, 0, gpus), options)
    assert not found.fits
    assert word in found.why


@pytest.mark.engine
@pytest.mark.timeout(400)
async def test_the_estimate_holds_for_a_running_engine(server: Server, model_dir: str) -> None:
    """What the engine's processes have for themselves, with the half GiB that a server has (this one has the
    tests' memory too), lies between the estimate and two thirds of it."""
    options = server.engine.options
    estimate = fit(read_shape(Path(model_dir))[0], Room(False, 1 << 50), options).needs
    used = GIB // 2
    for process in server.processes:
        memory = process.memory_info()
        used += memory.rss - memory.shared
    assert 2 / 3 * estimate < used < estimate, (used / GIB, estimate / GIB)
