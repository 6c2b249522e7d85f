"""Every form of quantised weights there is a tiny checkpoint of, served and held against its dequantised
twin in transformers.

    python -m tests.all_quantised [--dtype bfloat16] [NAME...]

Prints what comes of each on this machine: `test_quantised.py` does it for those that a CPU runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .all_families import one_line
from .family_process import PROMPTS, STRENGTHS, FamilyProcess, Served
from .family_reference import FamilyReference
from .quantised import FORMS, make_quantised
from .test_families import errors_of, readings

BASE: list[dict[str, float]] = [{}]
"""Strengths of the first prompt's runs, where none is steered."""


def errors_against(
    reference: FamilyReference,
    served: Served,
    runs: Sequence[int] = range(len(PROMPTS)),
    strengths: Sequence[dict[str, float]] = STRENGTHS,
) -> dict[str, float]:
    """The largest error of each metric, by its id; and how many tokens are not the reference's where it was
    sure, as `tokens`.

    Args:
        reference: of what is served.
        served: what the engine wrote down.
        runs: which of its runs are looked at.
        strengths: of each of those; their prompts are `PROMPTS`, in order.
    """
    largest: dict[str, float] = {"tokens": 0.0}
    for (result, reading, ids), prompt in zip(
        readings(served, reference, runs, strengths), PROMPTS, strict=False
    ):
        start = len(prompt)
        sure = np.median(reading.margin)
        largest["tokens"] += sum(
            reading.best[at - 1] != ids[at] and reading.margin[at - 1] >= sure
            for at in range(start, len(ids))
        )
        for metric, error in errors_of(result, reading, start, "").items():
            largest[metric] = max(largest.get(metric, 0.0), error)
    return largest


def held(name: str, folder: Path, process: FamilyProcess, dtype: str) -> str:
    """What came of one form, in words."""
    form = FORMS[name]
    quantised, twin = make_quantised(form, folder)
    served = process.serve(quantised, dtype=dtype, engine=dict(form.arguments))
    if served.failure is not None:
        return f"not served: {one_line(served.failure)}"
    found = errors_against(FamilyReference(str(twin), form.activations), served)
    return ", ".join(f"{metric} {error:.1e}" for metric, error in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--dtype", default="bfloat16")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process = FamilyProcess(Path(folder))
        for number, name in enumerate(asked.names or FORMS):
            began = time.perf_counter()
            try:
                said = held(name, Path(folder) / f"form-{number}", process, asked.dtype)
            except Exception as error:
                said = f"could not be held: {one_line(error)}"
                if isinstance(error, BrokenPipeError) or "process ended" in str(error):
                    process = FamilyProcess(Path(folder))
            took = time.perf_counter() - began
            print(f"{name} ({asked.dtype}, {took:.0f} s): {said}", flush=True)  # noqa: T201
        process.end()


if __name__ == "__main__":
    sys.exit(main())
