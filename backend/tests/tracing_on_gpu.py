"""Clients' code in an engine on a GPU: eager and in CUDA graphs.

    python -m tests.tracing_on_gpu [--mode eager graphs] [--ranks 2] [--dtype float32]
    python -m tests.tracing_on_gpu --url HOST:PORT --key TOKEN --model FOLDER --layers 1 --seconds 20

The first compares blocks with transformers in fp32, alone and among ordinary runs whose tokens must stay what
they are, and a block that reads a layer in every step with the rows that the engine sends of it; blocks that
raise, loop and take all memory have to end themselves and nobody else. The second sends traces to a running
server, one after the other, each reading so many layers in every step: for whoever measures what that costs
the others meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from nnsight import NNsight

from steersight.engine.options import EngineOptions
from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.engine.service import EngineService

from .families import FAMILIES, make_checkpoint
from .taken import Taken
from .traced import IDS, TOKEN_IDS, Served, differing, packed, tree_of

NEIGHBOURS, TOKENS = 8, 48


def every_step(at: Any) -> dict[str, torch.Tensor]:
    model = at.tree
    with at.trace(IDS, max_tokens=TOKENS, ignore_eos=True) as tracer:
        norms = [].save()
        for _ in tracer.iter[:TOKENS]:
            norms.append(sum(model.model.layers[1].output).float().norm(dim=-1).clone())
    return {"norms": torch.cat(list(norms))}


def hoarding(at: Any) -> None:
    with at.trace(IDS, max_tokens=4):
        hidden = at.tree.model.layers[1].output[0]
        torch.ones(200 << 30, dtype=torch.uint8, device=hidden.device)


def looping(at: Any) -> None:
    with at.trace(IDS, max_tokens=4):
        at.tree.model.layers[1].output[0]
        while True:
            pass


def raising(at: Any) -> None:
    with at.trace(IDS, max_tokens=4):
        at.tree.model.layers[1].output[0].nothing_of_that_name  # noqa: B018


ABUSE = {"CUDA out of memory": hoarding, "has taken 3 s": looping, "nothing_of_that_name": raising}
"""What its error says -> a block that fails."""


async def code(engine: EngineService, tree: Any, block: Any, name: str) -> tuple[dict[str, Any], Taken]:
    """What a block has saved, and its run."""
    traced, taken = packed(tree, block), Taken()
    options = RunOptions(name, wants=Wants(("residual_norm",)))
    request = RunRequest(traced.prompt_ids, traced.sampling, options, traced.block, read_cache=False)
    ended = await engine.generate(request, taken.take)
    assert ended.saved is not None
    found = torch.load(io.BytesIO(ended.saved.payload), map_location="cpu", weights_only=False)
    if found["error"]:
        raise RuntimeError(str(found["error"])[:2000])
    return found["saves"], taken


async def neighbours(engine: EngineService, tag: str) -> list[list[int]]:
    """The replies of ordinary runs that are written together."""

    async def one(index: int) -> list[int]:
        prompt = [3 + (7 * index + 5 * at) % 250 for at in range(20 + 9 * index)]
        sampling = {"max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
        taken = Taken()
        request = RunRequest(prompt, sampling, RunOptions(f"{tag}-{index}", wants=Wants(("residual_norm",))))
        await engine.generate(replace(request, read_cache=False), taken.take)
        return taken.tokens

    return list(await asyncio.gather(*map(one, range(NEIGHBOURS))))


async def tried(folder: Path, mode: str, ranks: int, dtype: str) -> str:
    """One engine; what was found, in words."""
    options = EngineOptions(
        model=str(folder / "model"), data_dir=folder, dtype=dtype, max_model_len=256, max_runs=16,
        engine_mode=mode, gpu_memory=0.3, tensor_parallel=ranks, nnsight=True,
        nnsight_seconds=3.0,
    )  # fmt: skip
    engine = EngineService(options)
    await engine.load()
    if not engine.status.ready:
        return engine.status.stage
    tree = tree_of(options.model)
    reference = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    tolerance = 1e-4 if dtype == "float32" else 3e-2
    wrong = []
    usual = await neighbours(engine, "usual")
    for name, (here, there) in TOKEN_IDS.items():
        expected = there(NNsight(reference))
        for way in ("alone", "among"):
            among = asyncio.create_task(neighbours(engine, f"{name}-{way}")) if way == "among" else None
            if among is not None:
                await asyncio.sleep(0.05)
            found, _ = await code(engine, tree, here, f"{name}-{way}-code")
            wrong += [f"{name}, {way}: {one}" for one in differing(found, expected, tolerance)]
            if among is not None and (theirs := await among) != usual:
                others = sum(now != then for now, then in zip(theirs, usual, strict=True))
                wrong.append(f"{name}: {others} neighbours differ")
    among = asyncio.create_task(neighbours(engine, "every"))
    found, taken = await code(engine, tree, every_step, "every-code")
    if await among != usual:
        wrong.append("neighbours of the block that reads every step differ")
    rows = np.exp2(taken.values(["residual_norm"])[:, 0, 1].astype(np.float64))
    norms = torch.cat(list(found["norms"])).double().numpy()
    if rows.shape != norms.shape or not np.allclose(rows, norms, rtol=2e-2):
        wrong.append(f"rows {rows.shape} and saves {norms.shape} differ")
    for says, block in ABUSE.items():
        among = asyncio.create_task(neighbours(engine, block.__name__))
        await asyncio.sleep(0.05)
        try:
            await code(engine, tree, block, block.__name__)
            wrong.append(f"{block.__name__} had no error")
        except RuntimeError as error:
            if says not in str(error):
                wrong.append(f"{block.__name__} said {str(error)[:300]}")
        if await among != usual:
            wrong.append(f"neighbours of {block.__name__} differ")
    held = await engine.held()
    await engine.shutdown()
    said = f"{len(TOKEN_IDS)} blocks alone and among {NEIGHBOURS}, one in every step, {len(ABUSE)} that fail"
    return f"{said}; held {held}; wrong: {wrong}"


def send(url: str, key: str, model: str, layers: int, seconds: float) -> None:
    """Traces one after the other, for so long."""
    at = Served(tree_of(model), url, key)
    tree, until, steps, began = at.tree, time.monotonic() + seconds, 0, time.monotonic()
    print("sending", flush=True)  # noqa: T201
    while time.monotonic() < until:
        with at.trace(IDS, max_tokens=TOKENS, ignore_eos=True) as tracer:
            norms = [].save()
            for _ in tracer.iter[:TOKENS]:
                for layer in range(layers):
                    norms.append(tree.model.layers[layer].output[0][-1].float().norm())
        steps += len(norms) // layers
    took = time.monotonic() - began
    print(f"{steps / took:.1f} steps/s of a run whose code reads {layers} layers")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", nargs="+", default=["eager", "graphs"])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--url", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    asked = parser.parse_args()
    if asked.url:
        send(asked.url, asked.key, asked.model, asked.layers, asked.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(FAMILIES["Llama"](), folder / "model")
        for mode in asked.mode:
            found = asyncio.run(tried(folder, mode, asked.ranks, asked.dtype))
            print(f"{mode}, {asked.dtype}, ranks={asked.ranks}: {found}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
