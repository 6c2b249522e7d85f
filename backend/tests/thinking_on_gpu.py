"""Replies steered in their thought or answer only, on a GPU, where steps are scheduled while the tokens
before them are still on the device: eager and in CUDA graphs.

    python -m tests.thinking_on_gpu [--ranks 2]

A tiny random model does not think, so each reply is written once before, and a token from its middle becomes
the mark that ends its thought. Then all are written at once, half steered in the thought and half in
the answer: the passes in which a row says that something was added have to be exactly those of the part.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import torch

from steersight.engine.options import EngineOptions
from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.engine.service import EngineService
from steersight.text.thoughts import Marks, Opening
from steersight.vectors.action import decide_all
from steersight.vectors.store import SteeringVector, save_vector

from .families import FAMILIES, HIDDEN, LAYERS, make_checkpoint
from .parting import parting, passes
from .taken import Taken

METRIC = "steering_share"
TOKENS, RUNS = 60, 16


def vector() -> SteeringVector:
    direction = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(2))
    return SteeringVector(
        id="v", label="v", description="A random direction.", layers=[1], directions=direction,
        range=(-1.0, 1.0), suggested=0.3, model="any", hidden_size=HIDDEN,
    )  # fmt: skip


class Trial:
    """Runs of one engine."""

    def __init__(self, engine: EngineService) -> None:
        self.engine = engine
        self._number = 0

    async def write(self, prompt: list[int], end: str = "", scope: str = "") -> Taken:
        """One reply; `end` is the mark that ends its thought, and `scope` where it is steered."""
        self._number += 1
        opening = Opening(Marks("<never>", end), len(prompt), "thought", "", ()) if end else None
        actions = []
        if scope:
            vectors = self.engine.offer.vectors
            actions = decide_all(
                {"v": 0.3}, {"v": {"scope": scope}}, vectors, len(prompt), LAYERS, thinks=True
            )
        options = RunOptions(
            f"run-{self._number}", wants=Wants((METRIC,)), actions=tuple(actions), opening=opening
        )
        sampling = {"max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
        taken = Taken()
        await self.engine.generate(RunRequest(prompt, sampling, options, read_cache=False), taken.take)
        return taken

    def mark(self, reply: list[int]) -> str:
        """A token of the reply that does not come before, as text, as near to its middle as there is one."""
        for at in sorted(range(4, TOKENS - 4), key=lambda at: abs(at - TOKENS // 2)):
            text: str = self.engine.tokenizer.decode(reply[at : at + 1])
            if text.isascii() and text.isprintable() and reply[at] not in reply[:at]:
                return text
        return ""

    async def hold(self) -> str:
        """What was found, in words."""
        prompts = [[3 + (7 * index + 5 * at) % 250 for at in range(20 + 9 * index)] for index in range(RUNS)]
        scopes = ["thought" if index % 2 else "answer" for index in range(RUNS)]
        # Up to the mark a reply steered in its thought is one that is steered from its first token on.
        whole = ["reply" if scope == "thought" else "" for scope in scopes]
        plain = await asyncio.gather(
            *(self.write(prompt, scope=scope) for prompt, scope in zip(prompts, whole, strict=True))
        )
        marks = [self.mark(taken.tokens) for taken in plain]
        steered = await asyncio.gather(
            *(self.write(*each) for each in zip(prompts, marks, scopes, strict=True) if each[1])
        )
        parted, wrong = 0, []
        known = [each for each in zip(prompts, marks, scopes, strict=True) if each[1]]
        for (prompt, end, scope), taken in zip(known, steered, strict=True):
            found = passes(self.engine.tokenizer, Marks("<never>", end), len(prompt), taken.tokens, True)
            parted += found.keys() == {"thought", "answer"}
            start, stop = found.get(scope, (0, 0))
            added = (taken.values([METRIC])[:, 0] > 0).any(axis=-1)
            pushed = [at for at, here in zip(taken.positions, added, strict=True) if here]
            last = len(prompt) + TOKENS - 1
            if pushed != list(range(start, last if stop is None else stop)):
                wrong.append(f"{scope} from {start} to {stop}, pushed at {pushed}")
        return f"{len(steered)} replies, {parted} parted; wrong: {wrong or 'none'}"


async def tried(folder: Path, mode: str, ranks: int) -> str:
    """One engine; what was found, in words."""
    options = EngineOptions(
        model=str(folder / "model"), data_dir=folder, dtype="bfloat16", max_model_len=256, max_runs=RUNS,
        engine_mode=mode, gpu_memory=0.3, tensor_parallel=ranks,
    )  # fmt: skip
    with parting():
        engine = EngineService(options)
        await engine.load()
    if not engine.status.ready:
        return engine.status.stage
    found = await Trial(engine).hold()
    await engine.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--mode", nargs="+", default=["eager", "graphs"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(FAMILIES["Llama"](), folder / "model")
        save_vector(vector(), folder / "vectors" / "v.safetensors")
        for mode in asked.mode:
            found = asyncio.run(tried(folder, mode, asked.ranks))
            print(f"{mode}, ranks={asked.ranks}: {found}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
