"""LoRA adapters on a GPU: base and adapted runs in one batch, eager and in CUDA graphs, against transformers.

    python -m tests.adapters_on_gpu make FOLDER      where peft is
    python -m tests.adapters_on_gpu try FOLDER [--ranks 2]

In bfloat16, the weights rounded before. The reference is the model with the adapter merged into it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .all_quantised import BASE, errors_against
from .family_process import PROMPTS, FamilyProcess
from .family_reference import FamilyReference

ADAPTERS: dict[str, dict[str, Any]] = {
    "small": {"seed": 1, "size": 0.08, "r": 8, "lora_alpha": 16},
    "large": {
        "seed": 2,
        "size": 0.2,
        "r": 16,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
    },
}
RUNS = ["", "small", "large", "small"]


def make(folder: Path) -> None:
    """The base model, two adapters, and the model with each of them merged into it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from .adapters_made import make_adapter
    from .experts_on_gpu import rounded
    from .families import FAMILIES, make_checkpoint

    base = folder / "base"
    make_checkpoint(FAMILIES["Llama"](), base)
    rounded(base)
    for name, config in ADAPTERS.items():
        make_adapter(str(base), folder / name, **config)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        PeftModel.from_pretrained(model, folder / name).merge_and_unload().save_pretrained(
            folder / f"merged-{name}"
        )
        AutoTokenizer.from_pretrained(base).save_pretrained(folder / f"merged-{name}")


def tried(folder: Path, ranks: int) -> None:
    """Print what came of it."""
    with tempfile.TemporaryDirectory() as place:
        process = FamilyProcess(Path(place))
        kept: list[list[Any]] = []
        for graphs in (False, True):
            served = process.serve(
                folder / "base", dtype="bfloat16", graphs=graphs, tensor_parallel=ranks,
                adapters=[[name, str(folder / name)] for name in ADAPTERS], with_adapters=RUNS,
                prompts=[PROMPTS[0]] * len(RUNS), actions=[[] for _ in RUNS],
            )  # fmt: skip
            if served.failure is not None:
                print(f"{graphs=}: {served.failure} {served.said[-1500:]}", flush=True)  # noqa: T201
                continue
            kept.append([served.result(index) for index in range(len(RUNS))])
            for index, adapter in enumerate(RUNS[:3]):
                reference = FamilyReference(str(folder / (f"merged-{adapter}" if adapter else "base")))
                found = errors_against(reference, served, [index], BASE)
                said = ", ".join(f"{name} {error:.1e}" for name, error in found.items())
                print(f"{adapter or 'base'}, {graphs=}, {ranks=}: {said}", flush=True)  # noqa: T201
        if len(kept) == 2:
            same = [np.array_equal(a["reply"], b["reply"]) for a, b in zip(*kept, strict=True)]
            apart = [
                float(np.nanmax(np.abs(a["values"].astype(float) - b["values"].astype(float))))
                for a, b, alike in zip(*kept, same, strict=True)
                if alike
            ]
            print(f"eager and graphs: {sum(same)} of {len(same)} replies the same, apart by {apart}")  # noqa: T201
        process.end()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "try"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=1)
    asked = parser.parse_args()
    if asked.what == "make":
        make(asked.folder)
    else:
        tried(asked.folder.resolve(), asked.ranks)


if __name__ == "__main__":
    sys.exit(main())
