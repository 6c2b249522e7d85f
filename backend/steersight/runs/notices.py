"""What all clients are told of the runs that notebooks have begun, so that a page can offer to watch them.

Whoever is let in is told of them. A list and no news: what is told replaces what was told before, so that
nobody has to put anything together, and however many runs begin and end in a moment, it is told once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..protocol.messages import MAX_BEGINNING, NotebookRuns, RunNotice
from .telling import Telling

if TYPE_CHECKING:
    from .run import Run

MAX_TOLD = 20
"""Runs that are told of, the newest."""

STATES = {"waiting": "waiting", "writing": "writing", "ending": "writing", "finished": "finished"}
"""What is said of each phase of a run's life."""


@dataclass(frozen=True)
class _Noted:
    run: Run
    beginning: str
    since: float


class Notices:
    """The runs of notebooks that are kept. Not thread-safe: all methods belong to one event loop."""

    def __init__(self) -> None:
        self._noted: dict[str, _Noted] = {}  # the oldest first
        self.telling = Telling(self._told)
        """Tells of them."""

    def __len__(self) -> int:
        return len(self._noted)

    def add(self, run: Run) -> None:
        """A run was admitted. One of a chat is its client's own business."""
        if run.origin != "notebook":
            return
        self._noted[run.id] = _Noted(run, beginning_of(run), time.time())
        run.moved = self.telling.changed
        self.telling.changed()

    def forget(self, run_id: str) -> None:
        """A run is kept no longer."""
        if self._noted.pop(run_id, None) is not None:
            self.telling.changed()

    def _told(self) -> NotebookRuns:
        newest = list(self._noted.values())[: -MAX_TOLD - 1 : -1]
        return NotebookRuns(runs=[_notice(noted) for noted in newest])


def _notice(noted: _Noted) -> RunNotice:
    run = noted.run
    return RunNotice.model_validate(
        {
            "run": run.id, "origin": run.origin, "prompt": noted.beginning, "since": noted.since,
            "state": STATES[run.phase.value],
        }
    )  # fmt: skip


def beginning_of(run: Run) -> str:
    """How its prompt begins, as a person reads it."""
    special = frozenset(run.facts.special_ids if run.facts else ())
    text = ""
    for token, piece in zip(run.prompt.ids, run.prompt.texts, strict=True):
        if token not in special:
            text += piece
        if len(text) >= MAX_BEGINNING:
            break
    return text[:MAX_BEGINNING]
