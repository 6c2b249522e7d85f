"""Runs that are watched otherwise in mid-run, and their alternatives, on a GPU: eager and in CUDA graphs.

    python -m tests.watching_on_gpu [--ranks 2] [--mode eager graphs]

All runs are written three times in one batch: watched with little, watched with all from the start, and with
little at first and all from the middle on. The tokens must be the same, and from the pass on whose entry says
that the run is watched otherwise its numbers those of the run that was watched so from the start; the
likeliest alternative must be the token that was written, with its log probability.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from steersight.engine.options import EngineOptions
from steersight.engine.reply import Entry
from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.engine.service import EngineService

from .families import FAMILIES, make_checkpoint
from .taken import Taken

TOKENS, RUNS = 60, 8
LITTLE = Wants(("residual_norm",))
ALL = Wants(
    ("residual_norm", "update_norm", "mlp_norm"), entropy=True, lens_stride=1, lens_top=3, alternatives=20
)


class Watched(Taken):
    """A run that can be waited for until it has been sent so much."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = asyncio.Event()

    def take(self, entry: Entry) -> None:
        super().take(entry)
        if len(self.tokens) >= TOKENS // 3:
            self.middle.set()


async def write(
    engine: EngineService, name: str, prompt: list[int], first: Wants, later: Wants | None
) -> Watched:
    """One greedy reply."""
    sampling: dict[str, Any] = {"max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
    request = RunRequest(prompt, sampling, RunOptions(name, wants=first), read_cache=False)
    taken = Watched()
    writing = asyncio.create_task(engine.generate(request, taken.take))
    if later is not None:
        await taken.middle.wait()
        await engine.watch(name, 1, later)
    await writing
    return taken


def numbers(taken: Watched, since: int) -> np.ndarray:
    """[rows, metrics of ALL, layers] of positions from `since` on."""
    entries = [entry for entry in taken.entries if entry.start >= since and entry.step is not None]
    part = Watched()
    part.entries = entries
    return part.values(list(ALL.metrics)).astype(np.float64)


def differences(plain: Watched, whole: Watched, changed: Watched) -> list[str]:
    """What is wrong with one prompt's three runs, in words."""
    wrong = []
    if not plain.tokens == whole.tokens == changed.tokens:
        wrong.append("the tokens differ")
    starts = [entry.start for entry in changed.entries if entry.watch == 1]
    if not starts:
        return [*wrong, "nothing was watched otherwise"]
    since = starts[0]
    mine, theirs = numbers(changed, since), numbers(whole, since)
    if mine.shape != theirs.shape:
        wrong.append(f"{mine.shape} numbers, not {theirs.shape}")
    elif not np.allclose(mine, theirs, rtol=0.02, atol=0.02, equal_nan=True):
        wrong.append(f"numbers are off by {np.nanmax(np.abs(mine - theirs)):.3f}")
    elif not np.isfinite(mine).any(axis=-1).all():
        wrong.append("numbers are missing")
    positions, ids, logprobs = changed.alternatives()
    if positions != list(range(since, positions[-1] + 1)):
        wrong.append(f"alternatives from {positions[0]}, not {since}")
    told = {entry.end - 1: (entry.token, entry.logprob) for entry in changed.entries}
    for at, best, nats in zip(positions, ids[:, 0], logprobs[:, 0], strict=True):
        token, logprob = told[at]
        if token == best and logprob is not None and abs(nats - logprob) < 1e-3:
            continue
        # A tie may be broken otherwise.
        if logprob is None or abs(nats - logprob) > 1e-3:
            wrong.append(f"at {at} token {token} of {logprob}, and the likeliest is {best} of {nats:.4f}")
    if len(changed.guesses()) != len(positions):
        wrong.append(f"{len(changed.guesses())} readings of the lens, not {len(positions)}")
    return wrong


async def tried(folder: Path, mode: str, ranks: int) -> str:
    """One engine; what was found, in words."""
    options = EngineOptions(
        model=str(folder / "model"), data_dir=folder, dtype="bfloat16", max_model_len=256, max_runs=3 * RUNS,
        engine_mode=mode, gpu_memory=0.3, tensor_parallel=ranks,
    )  # fmt: skip
    engine = EngineService(options)
    await engine.load()
    if not engine.status.ready:
        return engine.status.stage
    prompts = [[3 + (7 * index + 5 * at) % 250 for at in range(20 + 9 * index)] for index in range(RUNS)]
    kinds: list[tuple[Wants, Wants | None]] = [(LITTLE, None), (ALL, None), (LITTLE, ALL)]
    found = await asyncio.gather(
        *(
            write(engine, f"run-{index}-{kind}", prompt, *kinds[kind])
            for index, prompt in enumerate(prompts)
            for kind in range(3)
        )
    )
    wrong = [differences(*found[3 * index : 3 * index + 3]) for index in range(RUNS)]
    await engine.shutdown()
    return f"{RUNS} prompts, three runs each; wrong: {[each for each in wrong if each] or 'none'}"


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
        for mode in asked.mode:
            found = asyncio.run(tried(folder, mode, asked.ranks))
            print(f"{mode}, ranks={asked.ranks}: {found}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
