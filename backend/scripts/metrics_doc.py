"""Writes the table of docs/metrics.md from the registry, so that the document cannot say anything else.

python backend/scripts/metrics_doc.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from steersight.metrics import BUILT_IN, Experts, Metric
from steersight.metrics.registry import for_experts, for_vector

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
MARKS = "<!-- written by backend/scripts/metrics_doc.py -->", "<!-- end -->"
FAMILIES = {
    "residual": "Residual stream",
    "parts": "Parts of the update",
    "projection": "Projection on a vector (two per vector)",
    "steering": "Steering",
    "router": "Experts (of models that have them; the last two for each chosen expert)",
    "logit_lens": "Logit lens",
}


def row(metric: Metric) -> str:
    """One line of the table."""
    scale = metric.scale
    ends = "fitted" if scale.lo is None and scale.hi is None else f"{_end(scale.lo)} to {_end(scale.hi)}"
    if scale.kind == "diverging":
        ends += f", neutral at {_end(scale.mid)}"
    cells = (
        f"`{metric.id}`", metric.label, metric.description, metric.unit or "none", metric.transform,
        f"{scale.kind}, {ends}", metric.cost, "yes" if metric.default else "",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _end(value: float | None) -> str:
    return "fitted" if value is None else f"{value:g}"


def table() -> str:
    """All families, in the order of the registry."""
    metrics = [*BUILT_IN, *for_experts(Experts(count=128, chosen=1)), *for_vector("joy", "joy")]
    unnamed = {metric.family for metric in metrics} - FAMILIES.keys()
    if unnamed:
        raise SystemExit(f"FAMILIES of metrics_doc.py has no heading for {', '.join(sorted(unnamed))}.")
    lines = []
    for family, name in FAMILIES.items():
        lines += [
            f"### {name}",
            "",
            "| id | name | what it is | unit | sent as | colours | cost | by default |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(row(metric) for metric in metrics if metric.family == family),
            "",
        ]
    return "\n".join(lines).rstrip()


def written(text: str) -> str:
    """The document with the table as the registry has it."""
    before, start, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not start or not end:
        raise SystemExit(f"{DOCUMENT} has no lines {MARKS[0]} and {MARKS[1]}.")
    return f"{before}{MARKS[0]}\n\n{table()}\n\n{MARKS[1]}{after}"


def main() -> int:
    """Write the document, or with --check say whether it is up to date."""
    text = DOCUMENT.read_text()
    if "--check" in sys.argv:
        if written(text) != text:
            print("docs/metrics.md has drifted from the registry. Run `make types` and commit the result.")
            return 1
        return 0
    DOCUMENT.write_text(written(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
