"""Chat models to begin with: facts of some that many people use, of families that docs/models.md shows to be
equal to transformers.

A checkpoint of any other decoder that vLLM serves will do as well. `test_models_fit.py` holds the numbers
against transformers' own models.
"""

from __future__ import annotations

from dataclasses import dataclass

from .shape import Shape


@dataclass(frozen=True)
class Known:
    """One model of the Hugging Face hub."""

    name: str
    """Under which the hub knows it."""
    shape: Shape
    licence: str
    gated: bool = False
    """Whether the hub asks who one is: its terms have to be accepted there, and `hf auth login` be done."""
    leave_out: str = ""
    """Files of the repository that are the same weights once more, in a form that nobody reads here."""


def _bf16(
    parameters: int, layers: int, hidden: int, heads: int, kv_heads: int, head_size: int, context: int
) -> Shape:
    return Shape(parameters, "bfloat16", layers, heads, kv_heads, head_size, hidden, context)


KNOWN = (
    Known("HuggingFaceTB/SmolLM2-135M-Instruct", _bf16(134_515_008, 30, 576, 9, 3, 64, 8192), "Apache 2.0"),
    Known("HuggingFaceTB/SmolLM2-360M-Instruct", _bf16(361_821_120, 32, 960, 15, 5, 64, 8192), "Apache 2.0"),
    Known("Qwen/Qwen3-0.6B", _bf16(596_049_920, 28, 1024, 16, 8, 128, 40960), "Apache 2.0"),
    Known(
        "meta-llama/Llama-3.2-1B-Instruct", _bf16(1_235_814_400, 16, 2048, 32, 8, 64, 131_072),
        "Llama 3.2 Community", gated=True, leave_out="original/*",
    ),
    Known("google/gemma-2-2b-it", _bf16(2_614_341_888, 26, 2304, 8, 4, 256, 8192), "Gemma", gated=True),
    Known("Qwen/Qwen3-4B-Instruct-2507", _bf16(4_022_468_096, 36, 2560, 32, 8, 128, 262_144), "Apache 2.0"),
    Known(
        "meta-llama/Llama-3.1-8B-Instruct", _bf16(8_030_261_248, 32, 4096, 32, 8, 128, 131_072),
        "Llama 3.1 Community", gated=True, leave_out="original/*",
    ),
    Known("microsoft/phi-4", _bf16(14_659_507_200, 40, 5120, 40, 10, 128, 16_384), "MIT"),
    Known("Qwen/Qwen2.5-32B-Instruct", _bf16(32_763_876_352, 64, 5120, 40, 8, 128, 32_768), "Apache 2.0"),
    Known(
        "meta-llama/Llama-3.3-70B-Instruct", _bf16(70_553_706_496, 80, 8192, 64, 8, 128, 131_072),
        "Llama 3.3 Community", gated=True, leave_out="original/*",
    ),
)  # fmt: skip
"""The smallest first."""
