"""Replies steered in their thought or answer only, on a GPU, where steps are scheduled while the tokens
before them are still on the device: eager and in CUDA graphs, against each run alone and transformers.

    python -m tests.thinking_on_gpu [--ranks 2]

A tiny random model in fp32, which mostly repeats a token, so that marks made of it come.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken

from steersight.engine.options import EngineOptions
from steersight.engine.service import EngineService
from steersight.text.thoughts import Marks
from steersight.vectors.store import SteeringVector, save_vector

from .families import HIDDEN, LAYERS, make_checkpoint
from .family_reference import FamilyReference
from .parting import parting
from .schedules import Asked, Schedule
from .tokenizers_made import byte_level

BLOCK = 16
LENGTHS = (31, 60, 90, 130)


def vector() -> SteeringVector:
    direction = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(2))
    return SteeringVector(
        id="stays", label="stays", description="A random direction.", layers=[1], directions=direction,
        range=(-1.0, 1.0), suggested=0.3, model="any", hidden_size=HIDDEN,
    )  # fmt: skip


def make(model: Path) -> None:
    config = transformers.GPT2Config(
        n_embd=HIDDEN, n_layer=LAYERS, n_head=4, n_positions=1024, vocab_size=260, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    make_checkpoint(config, model)
    byte_level([AddedToken("<|end|>", special=True)], bos=True).save_pretrained(model)


def asked(end: str, text: int, length: int) -> Asked:
    """Steered in the answer, and from some token of the thought on in what is left of it."""
    return Asked(
        wave=0, text=text, length=length, after=None, tokens=60,
        sliders={"stays": (0.2, {"scope": "answer"})},
        changes=[(5, {"stays": (-0.3, {"scope": "thought"})}), (40, {"stays": (0.2, {"scope": "answer"})})],
        stop_at=None, marks=Marks("<never>", end), opened=True,
    )  # fmt: skip


async def tried(folder: Path, mode: str, ranks: int) -> str:
    """One engine; what was found, in words."""
    model = folder / "model"
    options = EngineOptions(
        model=str(model),
        data_dir=folder,
        dtype="float32",
        max_model_len=256,
        max_runs=8,
        engine_mode=mode,
        gpu_memory=0.3,
        block_size=BLOCK,
        tensor_parallel=ranks,
    )
    with parting():
        engine = EngineService(options)
        await engine.load()
    if not engine.status.ready:
        return engine.status.stage
    unit = torch.nn.functional.normalize(vector().directions[0], dim=0)
    ends = ("w" * 12, "<|end|>" * 12)
    schedule = Schedule(
        engine,
        [asked(ends[at % 2], at % 3, length) for at, length in enumerate(LENGTHS * 2)],
        {"stays": unit},
        BLOCK,
    )
    await schedule.play()
    reference = FamilyReference(str(model)).model
    parted = 0
    for index, live in schedule.live.items():
        await schedule.check(index)
        schedule.by_transformers(reference, index)
        parted += schedule.parts(live).keys() == {"thought", "answer"}
    held = await engine.held()
    await engine.shutdown()
    return f"{len(schedule.live)} runs as alone and as in transformers, {parted} of them parted; left: {held}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=1)
    ranks = parser.parse_args().ranks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "model")
        save_vector(vector(), folder / "vectors" / "stays.safetensors")
        for mode in ("eager", "graphs"):
            print(f"{mode}, {ranks=}: {asyncio.run(tried(folder, mode, ranks))}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
