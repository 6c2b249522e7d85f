"""Every family there is a tiny checkpoint of, served and held against transformers in fp32.

    python -m tests.all_families [--write] [NAME...]
    make families

What `test_families.py` does for a dozen of them. It prints what comes of each, or writes the table of
docs/models.md; takes some eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from steersight.config import REPOSITORY

from .families import FAMILIES, MORE
from .family_process import PROMPTS, TOKENS, FamilyProcess
from .family_reference import FamilyReference
from .test_families import PARTS, TOLERANCE, check_top, errors_of, readings

DOCUMENT = REPOSITORY / "docs" / "models.md"
MARKS = "<!-- written by backend/tests/all_families.py -->", "<!-- end -->"


def held(name: str, process: FamilyProcess) -> str:
    """What came of one family, in words."""
    try:
        mine = process.served(name)
    except Exception as error:
        return f"no checkpoint could be made: {one_line(error)}"
    if mine.failure is not None:
        return f"not served: {one_line(mine.failure)}"
    largest: dict[str, float] = {}
    others = 0
    for index, (result, reading, ids) in enumerate(readings(mine, FamilyReference(str(mine.model)))):
        start = len(PROMPTS[index])
        others += sum(
            reading.best[at - 1] != ids[at] and reading.margin[at - 1] >= TOLERANCE
            for at in range(start, len(ids))
        )
        for metric, error in errors_of(result, reading, start, name).items():
            largest[metric] = max(largest.get(metric, 0.0), error)
        try:
            check_top(result, reading)
        except AssertionError:
            largest["the named tokens"] = 1.0
    parts = "" if set(PARTS) <= set(largest) else "; without parts"
    most = f"{max(largest.values()):.0e}"
    if others or max(largest.values()) > TOLERANCE:
        return f"differs: {others} tokens of {2 * TOKENS}, numbers by up to {most}"
    return f"equal, to {most}{parts}"


def one_line(error: object) -> str:
    """What an error says, cut where it gets long."""
    text = " ".join(str(error).replace("|", "/").split())
    return text if len(text) < 160 else text[:157] + "..."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--write", action="store_true", help="write the table of docs/models.md")
    asked = parser.parse_args()
    every = FAMILIES | MORE
    rows = ["| family | architecture | against transformers |", "| --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        process = FamilyProcess(Path(folder))
        for name in asked.names or every:
            began = time.perf_counter()
            try:
                said = held(name, process)
            except Exception as error:
                said = f"could not be held: {one_line(error)}"
                if isinstance(error, BrokenPipeError) or "process ended" in str(error):
                    process = FamilyProcess(Path(folder))
            print(f"{name}: {said} ({time.perf_counter() - began:.0f} s)", flush=True)  # noqa: T201
            try:
                kind = every[name]().__class__.__name__.removesuffix("Config")
            except Exception:
                kind = "?"
            rows.append(f"| {name} | {kind} | {said} |")
        process.end()
    if asked.write:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0], 1)
        _, after = rest.split(MARKS[1], 1)
        table = "\n".join(rows)
        DOCUMENT.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")
        print(f"Written into {DOCUMENT}.", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
