"""Which members a run has, of which dtype and shape: the one table that reader and writer share.

A dimension is a letter that stands for the same number in all members of a run, with 1 more where it says
so. `docs/recordings.md` is the same for people, and a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One member of a run, below `runs/i/`."""

    name: str
    dtype: str
    dims: tuple[str, ...]
    """Such as ("c", "L"), or ("p+1",)."""
    part: str = ""
    """What it belongs to that may be left out as a whole; empty for what every run has."""


COLUMNS = (
    Column("tokens", "<i4", ("p",)),
    Column("text", "|u1", ("bytes",)),
    Column("text_offsets", "<i4", ("p+1",)),
    Column("logprobs", "<f4", ("r",)),
    Column("ranks", "<i4", ("r",)),
    Column("revisions", "<i4", ("c",)),
    Column("entropy", "<f2", ("c",), "entropy"),
    Column("lens/positions", "<i4", ("guesses",), "lens"),
    Column("lens/layers", "<i4", ("read",), "lens"),
    Column("lens/ids", "<i4", ("guesses", "read", "top"), "lens"),
    Column("lens/probabilities", "<f2", ("guesses", "read", "top"), "lens"),
    Column("alternatives/positions", "<i4", ("alternatives",), "alternatives"),
    Column("alternatives/ids", "<i4", ("alternatives", "likeliest"), "alternatives"),
    Column("alternatives/logprobs", "<f4", ("alternatives", "likeliest"), "alternatives"),
    Column("names/ids", "<i4", ("k",), "names"),
    Column("names/text", "|u1", ("names bytes",), "names"),
    Column("names/text_offsets", "<i4", ("k+1",), "names"),
)


def rows_column(metric: str) -> Column:
    """The member with the rows of a metric."""
    return Column(f"rows/{metric}", "<f2", ("c", "L"))


def member(run: int, column: Column) -> str:
    """The member's name in the file."""
    return f"runs/{run}/{column.name}.npy"
