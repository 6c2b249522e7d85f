"""A recording in memory: runs with their columns, and the turns that they answer. Who reads or makes one
has this; `reader.py` and `writer.py` know the file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .meta import RunInfo, Turn

if TYPE_CHECKING:
    from pathlib import Path

Halves = NDArray[np.float16]
Floats = NDArray[np.float32]
Whole = NDArray[np.int32]


@dataclass
class Guesses:
    """The likeliest next tokens by the raw logit lens; n positions, l layers."""

    positions: Whole
    """[n], ascending; what stands at p was guessed for p + 1."""
    layers: Whole
    """[l], ascending."""
    ids: Whole
    """[n, l, top], likeliest first; -1 where a layer was not read."""
    probabilities: Halves
    """[n, l, top]; NaN where a layer was not read."""


@dataclass
class Alternatives:
    """The likeliest tokens of the model's final distribution; n positions."""

    positions: Whole
    """[n], ascending; what stands at p was for p + 1."""
    ids: Whole
    """[n, top], likeliest first; -1 where there are fewer."""
    logprobs: Floats
    """[n, top] nats; NaN where there are fewer."""


@dataclass
class RecordedRun:
    """One run: p tokens of prompt and reply, r of the reply, c columns up to the last row, L layers."""

    info: RunInfo
    tokens: Whole
    """[p] ids."""
    texts: list[str]
    """[p] pieces, as the server gave them."""
    logprobs: Floats
    """[r] nats; NaN where not known."""
    ranks: Whole
    """[r]; 1 is the likeliest, 0 where not known."""
    revisions: Whole
    """[c] revision of each row; -1 where there is none."""
    rows: dict[str, Halves]
    """Metric id -> [c, L] as sent: log2 where the metric's transform says so; NaN where there is none."""
    entropy: Halves | None = None
    """[c] nats; NaN where not known; None where never asked."""
    lens: Guesses | None = None
    alternatives: Alternatives | None = None
    names: dict[int, str] = field(default_factory=dict)
    """Texts of the token ids that `lens` and `alternatives` name."""

    @property
    def reply_texts(self) -> list[str]:
        """The reply's pieces."""
        return self.texts[self.info.prompt.tokens :]

    def values(self, metric: str) -> Floats:
        """[c, L] of one metric in its unit. Raises KeyError where the run has no rows of it."""
        sent = self.rows[metric].astype(np.float32)
        transform = next(info.transform for info in self.info.metrics if info.id == metric)
        if transform == "log2":
            return np.exp2(sent)
        return sent if transform == "linear" else np.full_like(sent, np.nan)


@dataclass
class Recording:
    """A conversation of one or more runs."""

    runs: list[RecordedRun]
    turns: list[Turn]
    title: str = ""
    made_by: str = ""
    made_at: str = ""
    """ISO 8601, in UTC."""

    def save(self, path: str | Path, *, replace: bool = True) -> None:
        """Write it to a file, whole or not at all. Raises OSError; FileExistsError unless it may replace."""
        from .writer import save

        save(self, path, replace=replace)


def named_in(lens: Guesses | None, alternatives: Alternatives | None) -> set[int]:
    """The token ids that guesses and alternatives name."""
    found: set[int] = set()
    for part in (lens, alternatives):
        if part is not None:
            found.update(np.unique(part.ids).tolist())
    return found - {-1}


def now() -> str:
    """This moment, as `made_at` has it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def one_run(run: RecordedRun, user: str, *, made_by: str, made_at: str) -> Recording:
    """A recording of one run alone."""
    return conversation([(user, run)], made_by=made_by, made_at=made_at)


def conversation(turns: Sequence[tuple[str, RecordedRun]], *, made_by: str, made_at: str) -> Recording:
    """A recording of turns that follow one another: what was asked, and the run that answered."""
    names = [f"c{number}" for number in range(1, len(turns) + 1)]
    return Recording(
        runs=[run for _, run in turns],
        turns=[
            Turn(id=name, parent=names[at - 1] if at else None, user=user, run=at)
            for at, (name, (user, _)) in enumerate(zip(names, turns, strict=True))
        ],
        title=title_of(turns[0][0]) if turns else "",
        made_by=made_by,
        made_at=made_at,
    )


def title_of(text: str) -> str:
    """The first line of what was asked, as a title."""
    line = text.strip().partition("\n")[0].strip()
    return line if len(line) <= 80 else line[:79].rstrip() + "…"
