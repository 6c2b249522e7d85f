"""The routers of tiny mixtures of experts on a GPU: eager, under CUDA graphs, and over two GPUs, against
transformers.

    python -m tests.experts_on_gpu [--ranks 2]

In bfloat16, the weights rounded before, so that both sides compute with the same. Where two experts are next
to equal either may be chosen, so of the chosen experts the share that is the same is told.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from steersight.engine.loading import experts_of

from .families import FAMILIES, MORE, make_checkpoint
from .family_process import PROMPTS, TOKENS, FamilyProcess, Served
from .family_reference import FamilyReference
from .test_families import readings

NAMES = ("Mixtral", "Qwen 3 MoE", "GLM 4 MoE", "gpt-oss")


def rounded(folder: Path) -> None:
    """Round a checkpoint's weights to bfloat16, and leave them fp32."""
    file = folder / "model.safetensors"
    weights = {name: one.bfloat16().float() for name, one in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})


def against(reference: FamilyReference, served: Served) -> str:
    """How far the router's numbers are from the reference's, in words."""
    worst: dict[str, float] = {}
    same, seen = 0, 0
    for index, (result, reading, _ids) in enumerate(readings(served, reference)):
        n = len(PROMPTS[index]) + TOKENS - 1
        names = result["metrics"].tolist()
        for at, name in enumerate(names):
            if name not in reading.metrics or not name.startswith(("router", "expert")):
                continue
            found, expected = result["values"][:n, at].astype(np.float64), reading.metrics[name][:n]
            if not np.array_equal(np.isnan(found), np.isnan(expected)):
                return f"{name} has no number somewhere"
            there = ~np.isnan(expected)
            if name.startswith("expert:"):
                same += int((found == expected)[there].sum())
                seen += int(there.sum())
            elif name.startswith("router"):
                error = np.abs(found - expected)[there].max()
                worst[name] = max(worst.get(name, 0.0), float(error))
    return f"{same} of {seen} chosen experts the same, " + ", ".join(f"{n} {e:.1e}" for n, e in worst.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=1)
    ranks = parser.parse_args().ranks
    with tempfile.TemporaryDirectory() as folder:
        process = FamilyProcess(Path(folder))
        for name in NAMES:
            model = Path(folder) / name.replace(" ", "_")
            config = (FAMILIES | MORE)[name]()
            make_checkpoint(config, model)
            rounded(model)
            kept: list[Any] = []
            for graphs in (False, True):
                served = process.serve(
                    model, experts_of(config), dtype="bfloat16", graphs=graphs, tensor_parallel=ranks
                )
                if served.failure is not None:
                    print(f"{name}, {graphs=}: {served.failure} {served.said[-1500:]}", flush=True)  # noqa: T201
                    continue
                found = against(FamilyReference(str(model)), served)
                print(f"{name}, {graphs=}, {ranks=}: {found}", flush=True)  # noqa: T201
                kept.append([served.result(index)["values"] for index in range(len(PROMPTS))])
            if len(kept) == 2:
                apart = [
                    float(np.nanmax(np.abs(a.astype(float) - b.astype(float))))
                    for a, b in zip(*kept, strict=True)
                ]
                print(f"{name}: eager and graphs apart by {max(apart):.1e} in any number", flush=True)  # noqa: T201
        process.end()


if __name__ == "__main__":
    sys.exit(main())
