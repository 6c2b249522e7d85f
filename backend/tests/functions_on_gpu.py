"""Functions of a file as sliders in an engine on a GPU: eager and in CUDA graphs.

    python -m tests.functions_on_gpu [--ranks 2] [--mode eager graphs]

Runs are written together: plain ones, ones that a function steers from the start, and ones that it steers
from the middle on. Plain ones must be what they are when nobody is steered; steered ones what transformers
writes with the same function as a hook, as far as the model in fp32 has no tie there; and what rows say was
added must stand where the function acted, which is at all positions but the first.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from steersight.engine.options import EngineOptions
from steersight.engine.request import RunOptions, RunRequest, Wants
from steersight.engine.service import EngineService
from steersight.vectors.action import FUNCTION, Action

from .families import FAMILIES, make_checkpoint
from .taken import Taken

TOKENS, RUNS, LAYER, STRENGTH = 40, 6, 1, 0.4
FILE = '''
from steersight.interventions import intervention

@intervention(layers=[1], range=(0, 2), per_token=True)
def roll(hidden, context, strength):
    """Mixes each number with its neighbour.

    For a test.
    """
    return hidden + strength * hidden.roll(1, dims=-1)
'''


async def write(engine: EngineService, name: str, prompt: list[int], kind: str) -> Taken:
    """One greedy reply: "plain", "steered", or "later"."""
    actions = [Action("roll", STRENGTH, operator=FUNCTION)]
    options = RunOptions(
        name, wants=Wants(("steering_share",)), actions=tuple(actions if kind == "steered" else ())
    )
    sampling: dict[str, Any] = {"max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
    taken, middle = Taken(), asyncio.Event()

    def take(entry: Any) -> None:
        taken.take(entry)
        if len(taken.tokens) >= TOKENS // 3:
            middle.set()

    writing = asyncio.create_task(
        engine.generate(RunRequest(prompt, sampling, options, read_cache=False), take)
    )
    if kind == "later":
        await middle.wait()
        await engine.steer(name, 1, actions)
    await writing
    return taken


@torch.inference_mode()
def unlike(model: Any, prompt: list[int], taken: Taken, margin: float) -> int:
    """How many tokens transformers would not have written, where its two likeliest are apart by `margin`."""
    ids, revisions = prompt + taken.tokens, taken.revisions
    acts = torch.tensor([[at > 0 and (rev > 0 or taken.steered) for at, rev in enumerate(revisions)]])

    def hook(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.where(acts[..., None], output + STRENGTH * output.roll(1, dims=-1), output)

    handle = model.model.layers[LAYER].register_forward_hook(hook)
    logits = model(torch.tensor([ids[:-1]])).logits[0, len(prompt) - 1 :]
    handle.remove()
    best = logits.topk(2, dim=-1)
    clear = (best.values[:, 0] - best.values[:, 1]) > margin
    return int((clear & (best.indices[:, 0] != torch.tensor(taken.tokens))).sum())


async def tried(folder: Path, mode: str, ranks: int) -> str:
    """One engine; what was found, in words."""
    options = EngineOptions(
        model=str(folder / "model"), data_dir=folder, dtype="bfloat16", max_model_len=256, max_runs=4 * RUNS,
        engine_mode=mode, gpu_memory=0.3, tensor_parallel=ranks, interventions=(str(folder / "roll.py"),),
    )  # fmt: skip
    engine = EngineService(options)
    await engine.load()
    if not engine.status.ready:
        return engine.status.stage
    prompts = [[3 + (7 * index + 5 * at) % 250 for at in range(20 + 9 * index)] for index in range(RUNS)]
    usual = await asyncio.gather(
        *(write(engine, f"usual-{n}", prompt, "plain") for n, prompt in enumerate(prompts))
    )
    kinds = ("plain", "steered", "later")
    found = await asyncio.gather(
        *(write(engine, f"{kind}-{n}", prompt, kind) for n, prompt in enumerate(prompts) for kind in kinds)
    )
    await engine.shutdown()
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    wrong, moved = [], 0
    for n, prompt in enumerate(prompts):
        plain, steered, later = found[3 * n : 3 * n + 3]
        steered.steered = True  # type: ignore[attr-defined]  # from revision 0 on
        if plain.tokens != usual[n].tokens:
            same = sum(a == b for a, b in zip(plain.tokens, usual[n].tokens, strict=True))
            wrong.append(f"{n}: a neighbour has {same} of {TOKENS} tokens of those it has alone")
        for kind, taken in zip(kinds, (plain, steered, later), strict=True):
            taken.steered = kind == "steered"  # type: ignore[attr-defined]
            if others := unlike(model, prompt, taken, 0.3):
                wrong.append(f"{n}: {others} tokens of {kind} are not those of transformers")
            pushed = taken.values(["steering_share"])[:, 0, LAYER] > 0
            acts = [at > 0 and (rev > 0 or kind == "steered") for at, rev in enumerate(taken.revisions)]
            if pushed.tolist() != acts:
                wrong.append(f"{n}: rows of {kind} tell of {int(pushed.sum())} and not of {sum(acts)}")
        moved += steered.tokens != plain.tokens
    return f"{RUNS} prompts, three runs each, {moved} replies changed; wrong: {wrong or 'none'}"


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
        (folder / "roll.py").write_text(FILE)
        for mode in asked.mode:
            found = asyncio.run(tried(folder, mode, asked.ranks))
            print(f"{mode}, ranks={asked.ranks}: {found}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
