"""What all clients are told of the runs that notebooks have begun, so that a page can offer to watch them.

Whoever is let in is told of them. A list and no news: what is told replaces what was told before, so that
nobody has to put anything together, and however many runs begin and end in a moment, it is told once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..protocol import codec
from ..protocol.messages import MAX_BEGINNING, NotebookRuns, RunNotice

if TYPE_CHECKING:
    from .run import Run

MAX_TOLD = 20
"""Runs that are told of, the newest."""
PAUSE_SECONDS = 0.25
"""From one telling to the next: a notebook may begin hundreds of runs in a second, and many may listen."""

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
        self._listeners: list[Callable[[], None]] = []
        self._frame: bytes | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._again = False
        """Whether something has changed since it was told last."""
        self._closed = False

    def __len__(self) -> int:
        return len(self._noted)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when `frame` is another; returns a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def add(self, run: Run) -> None:
        """A run was admitted. One of a chat is its client's own business."""
        if run.origin != "notebook":
            return
        self._noted[run.id] = _Noted(run, beginning_of(run), time.time())
        run.moved = self._changed
        self._changed()

    def forget(self, run_id: str) -> None:
        """A run is kept no longer."""
        if self._noted.pop(run_id, None) is not None:
            self._changed()

    def frame(self) -> bytes:
        """What there is to tell, packed."""
        if self._frame is None:
            newest = list(self._noted.values())[: -MAX_TOLD - 1 : -1]
            self._frame = codec.encode(NotebookRuns(runs=[_notice(noted) for noted in newest]))
        return self._frame

    def close(self) -> None:
        """Tell nothing any more."""
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()

    def _changed(self) -> None:
        self._frame = None
        if self._closed:
            return
        if self._pause is not None:
            self._again = True
            return
        self._pause = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._pause_over)
        for listener in list(self._listeners):
            listener()

    def _pause_over(self) -> None:
        self._pause = None
        if self._again:
            self._again = False
            self._changed()


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
